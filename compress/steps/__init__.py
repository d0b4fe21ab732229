"""What each kind of step does: decide, write its result into a folder, and say so in the plan."""
