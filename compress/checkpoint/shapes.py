"""What is stored against what a config asks for, from headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from compress.errors import ModelError

if TYPE_CHECKING:
    from compress.checkpoint.header import TensorSpec

Wanted = tuple["TensorSpec", Sequence[int], torch.dtype]
"""A stored tensor, and the shape and dtype of its place in the model."""


def check_shapes(wanted: Iterable[Wanted], asking: str = "config.json asks for") -> None:
    """Raise ModelError, with file, tensor and both shapes, where a tensor has not the shape of its place.

    Also where the place holds floating-point numbers and what is stored are none, or none of two bytes or more.
    `asking` is whose wish the shape is.
    """
    for spec, shape, dtype in wanted:
        if tuple(spec.shape) != tuple(shape):
            raise ModelError(
                f"{spec.file}: {spec.name} is {list(spec.shape)}, {asking} {list(shape)}; they belong to two models, "
                f"or one is damaged: fetch or save both again"
            )
        if dtype.is_floating_point and not (spec.dtype.is_floating_point and spec.dtype.itemsize > 1):
            kind = str(spec.dtype).removeprefix("torch.")
            raise ModelError(
                f"{spec.file}: {spec.name} is stored as {kind}, where the model has floating-point numbers; give a "
                f"checkpoint in float32, float16 or bfloat16"
            )
