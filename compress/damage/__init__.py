"""What cuts cost, measured: a block that loses groups, its own error, and how far the model's output moves."""
