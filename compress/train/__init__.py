"""Sparse training: the ramp of its sparsity, the callback that carries it out, what loss to expect of it."""
