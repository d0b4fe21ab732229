"""Single weights: which matrices, which of their weights, what is left of them."""
