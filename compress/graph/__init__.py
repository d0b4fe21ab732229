"""The dependency graph: which slices of which tensors must go together."""
