"""Task vectors: what fine-tuning changed, pruned, stored sparsely, and added to the base again."""
