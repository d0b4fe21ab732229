"""Arrays as tensors and back, and the operators that work on plain numbers: sizes, axes, positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.errors import ModelError
from compress.onnx_model.file import Node

DTYPES: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
"""ONNX's numbers for types of elements."""


def is_float(array: np.ndarray) -> bool:
    """Whether the elements are floating-point numbers, those of half precision too."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def to_tensor(array: np.ndarray) -> Tensor:
    """The same numbers as a tensor in memory of its own."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    if not array.flags.writeable or not array.flags.c_contiguous:
        array = array.copy(order="C")
    return torch.from_numpy(array.reshape(array.shape))


def to_array(tensor: Tensor) -> np.ndarray:
    """The same numbers as an array."""
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.detach().float().numpy().astype(ml_dtypes.bfloat16)
    return tensor.detach().numpy()


def placed(array: np.ndarray, device: torch.device) -> Tensor:
    """A constant among tensors. Where all its numbers are one, nothing in it depends on the position."""
    if array.size and (array == array.flat[0]).all():
        dtype = to_tensor(np.zeros(1, array.dtype)).dtype
        return torch.full(array.shape, array.flat[0].item(), dtype=dtype, device=device)
    return to_tensor(array).to(device)


NEWEST = 26
"""The version of ONNX's operators up to which one is looked for."""


class Numbers:
    """Runs nodes on plain numbers by ONNX's own reference of its operators."""

    def __init__(self, versions: Mapping[str, int]) -> None:
        self._versions = versions
        self._made: dict[int, Any] = {}

    def __call__(self, node: Node, values: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """The node's outputs. Raises ModelError for an operator that ONNX does not define."""
        given = {name: value for name, value in zip(node.inputs, values, strict=True) if name and value is not None}
        try:
            if id(node) not in self._made:
                self._made[id(node)] = self._evaluator(node)
            with np.errstate(all="ignore"):
                return list(self._made[id(node)].run(None, given, attributes={}))
        except Exception as error:  # the reference raises whatever numpy does
            raise ModelError(f"{node}: {str(error).strip().partition(chr(10))[0]}") from error

    def _evaluator(self, node: Node) -> Any:
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        given = list(dict.fromkeys(name for name in node.inputs if name))
        made = [name for name in node.outputs if name]
        for version in range(node.version, NEWEST):
            known = {**self._versions, node.domain: version}
            opsets = [helper.make_opsetid(*each) for each in known.items()]
            try:
                return ReferenceEvaluator(helper.make_function("compress", "one", given, made, [node.proto], opsets))
            except RuntimeError:  # the reference lacks the oldest versions of some operators
                if node.domain or version + 1 == NEWEST:
                    raise
