"""Layer ratios: what share of its weights each matrix loses. `function(matrices, share) -> {tensor: share}`.

`matrices` (`compress.sparse.matrices.Matrices`) knows the matrices' shapes and blocks, reads weights and statistics and
measures losses; `share` is the share of all their weights that goes. `needs` are statistics of the dense model; a ratio
that is added with `scores=True` is given the criterion's saliencies too, by `matrices.saliency(name)`.
"""
