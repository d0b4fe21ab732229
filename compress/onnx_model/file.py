"""An .onnx file in memory: the graph, its weights, what must be refused of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import InputError, ModelError

LARGEST = 2_000_000_000
"""Bytes of weights up to which they are inside the file; protobuf ends at two gibibytes."""


def is_cache(name: str) -> bool:
    """Whether an input or output holds keys and values of earlier tokens, whose widths follow the model's."""
    return re.match(r"(past|present)(_key_values)?\b", name) is not None


@dataclass(frozen=True)
class Node:
    """One node: the `kind` of operator and its `domain` ("" is ONNX's own), in the `version` that the file asks for.

    `name` is the node's own, or what stands for it: `MatMul_3`. Inputs that are left out are empty names.
    """

    name: str
    kind: str
    domain: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    proto: Any

    def __str__(self) -> str:
        return f"{self.domain + '.' if self.domain else ''}{self.kind} at {self.name}"

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, as Python has it."""
        return self.attributes.get(name, default)

    def operand(self, place: int) -> str:
        """Name of an input, empty where there is none."""
        return self.inputs[place] if place < len(self.inputs) else ""


class OnnxFile:
    """The file at `path`, functions inlined; weights lie in memory wherever the file had them.

    `nodes` are in order of execution, constants are no nodes: `arrays` has the value of every initialiser and Constant
    node by name. `inputs` and `outputs` are those of the graph, weights left out. `external`: the weights lay in files
    beside it. `weights` are arrays that are known to be weights, whatever is left of them. Raises InputError where it
    is no ONNX file or a damaged one, ModelError where it holds graphs in nodes or sparse weights.
    """

    def __init__(self, path: Path, weights: Collection[str] = ()) -> None:
        self.path, self.weights = path, frozenset(weights)
        self.proto, self.external = _read(path)
        graph = self.proto.graph
        if graph.sparse_initializer:
            raise ModelError(f"{path}: {graph.sparse_initializer[0].values.name} is a sparse weight; store it densely")
        _refuse_graphs(path, graph)
        self.versions: dict[str, int] = {each.domain or "": each.version for each in self.proto.opset_import}
        self.arrays: dict[str, np.ndarray] = dict(_constants(self.proto))
        self.nodes = list(self._nodes(graph.node))
        stored = {each.name for each in graph.initializer}
        self.inputs: list[Any] = [each for each in graph.input if each.name not in stored]
        self.outputs: list[str] = [each.name for each in graph.output]

    @property
    def bytes(self) -> int:
        """Size of all weights and constants."""
        return sum(array.nbytes for array in self.arrays.values())

    def _nodes(self, protos: Any) -> Iterator[Node]:
        import onnx

        for number, proto in enumerate(protos):
            if proto.op_type == "Constant" and not proto.domain:
                continue
            domain = "" if proto.domain == "ai.onnx" else proto.domain
            yield Node(
                proto.name or f"{proto.op_type}_{number}",
                proto.op_type,
                domain,
                self.versions.get(domain, 1),
                tuple(proto.input),
                tuple(proto.output),
                {each.name: _plain(onnx.helper.get_attribute_value(each)) for each in proto.attribute},
                proto,
            )


def _refuse_graphs(path: Path, graph: Any) -> None:
    """Raises ModelError for a node that holds a graph of its own, which is run or not as values have it."""
    for number, node in enumerate(graph.node):
        inner = [each.g for each in node.attribute if each.HasField("g")]
        if not inner:
            continue
        weights = {each.name for each in graph.initializer}
        read = [name for one in inner for other in one.node for name in other.input if name in weights]
        read += [each.name for one in inner for each in one.initializer]
        more = f", with the weights {', '.join(list(dict.fromkeys(read))[:4])}" if read else ""
        raise ModelError(
            f"{path}: {node.op_type} at {node.name or number} holds a graph of its own{more}, run as values have it; "
            f"export the model without {node.op_type}, or take the branch that you need out of it"
        )


def _read(path: Path) -> tuple[Any, bool]:
    try:
        import onnx
        from onnx.external_data_helper import load_external_data_for_model, uses_external_data
        from onnx.inliner import inline_local_functions
    except ImportError:
        raise InputError("onnx is not installed: pip install 'compress-models[onnx]'") from None
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load(str(path), load_external_data=False)
        external = any(uses_external_data(each) for each in proto.graph.initializer)
        load_external_data_for_model(proto, str(path.parent))
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path}: no readable ONNX file: {str(error).strip().partition(chr(10))[0]}") from None
    if not proto.graph.node:
        raise InputError(f"{path}: holds no graph; is it an ONNX file?")
    return inline_local_functions(proto) if proto.functions else proto, external


def _constants(proto: Any) -> Iterator[tuple[str, np.ndarray]]:
    from onnx import numpy_helper

    for each in proto.graph.initializer:
        yield each.name, numpy_helper.to_array(each)
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            yield node.output[0], constant(node)


def constant(proto: Any) -> np.ndarray:
    """The value of a Constant node. Raises ModelError for one that is sparse."""
    import onnx

    (attribute,) = proto.attribute
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return onnx.numpy_helper.to_array(value)
    if attribute.name == "sparse_value":
        raise ModelError(f"{proto.output[0]} is a sparse constant; store it densely")
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return np.array(value, kinds.get(attribute.name, np.object_))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        return [each.decode() for each in value]
    return value
