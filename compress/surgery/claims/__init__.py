"""What is true of an edited model, one file a claim, each with its proof."""
