"""Layer-wise relevance propagation: what a model's answer is made of, layer by layer, as gradients by other rules."""
