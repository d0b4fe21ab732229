"""PruneNet (Sengupta et al. 2025, https://arxiv.org/abs/2501.15296): a policy that keeps the spectrum of a matrix."""
