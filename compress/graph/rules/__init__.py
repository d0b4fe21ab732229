"""What each operator does to axes. One function an operator (or several that act alike), grouped by what they do."""

from compress.graph.rules import (
    convolution,
    create,
    index,
    masked_scatter,
    matmul,
    norm,
    pointwise,
    pool,
    reduce,
    shape,
    values,
)

__all__ = [
    "convolution",
    "create",
    "index",
    "masked_scatter",
    "matmul",
    "norm",
    "pointwise",
    "pool",
    "reduce",
    "shape",
    "values",
]
