"""What each operator does, in terms of torch. One function an operator (or several that act alike), by theme."""

from compress.onnx_model.operators import (
    convolution,
    elementwise,
    look_up,
    normalise,
    products,
    reduce,
    shape,
)

__all__ = ["convolution", "elementwise", "look_up", "normalise", "products", "reduce", "shape"]
