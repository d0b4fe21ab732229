"""What in a graph reads what."""

from __future__ import annotations

from compress.onnx_model.arrays import is_float
from compress.onnx_model.file import OnnxFile
from compress.onnx_model.registry import operator_of

WEIGHED = ("BatchNormalization", "Conv", "ConvTranspose", "Gemm", "LayerNormalization")
"""Operators whose constant operands are weights, were they a single number."""


def stored_arrays(file: OnnxFile) -> set[str]:
    """Arrays that are weights: of floating-point numbers, of more than one of them but where the file or the operator
    says so, and not read as sizes or places alone."""
    weights: set[str] = set()
    single = {name for node in file.nodes if node.kind in WEIGHED for name in node.inputs} | file.weights
    for node in file.nodes:
        found = operator_of(node)
        numbers = found.numbers if found is not None else frozenset()
        weights |= {name for place, name in enumerate(node.inputs) if place not in numbers}
    floats = {name: array for name, array in file.arrays.items() if name in weights and is_float(array)}
    return {name for name, array in floats.items() if array.size > 1 or name in single}


def last_uses(file: OnnxFile) -> dict[str, int]:
    """Value → the place of the last node that reads it."""
    last: dict[str, int] = {}
    for place, node in enumerate(file.nodes):
        last.update(dict.fromkeys(node.inputs, place))
    return {name: place for name, place in last.items() if name and name not in file.outputs}
