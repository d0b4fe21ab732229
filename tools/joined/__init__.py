"""A vision–language model joined out of trained parts, and pictures to ask it about."""
