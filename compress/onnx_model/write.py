"""The graph with other weights and sizes, as a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from compress.onnx_model.arrays import to_array
from compress.onnx_model.file import LARGEST
from compress.onnx_model.module import OnnxModule
from compress.onnx_model.sizes import Change

APART = 256
"""Bytes from which on an array lies in the file of data, where there is one."""


def changed_proto(
    module: OnnxModule,
    tensors: Mapping[str, Tensor],
    changes: Iterable[Change] = (),
    sizes: Mapping[str, Sequence[int]] | None = None,
) -> Any:
    """A copy of the module's file with these `tensors` (name of a parameter → its value) and `changes`.

    A tensor that the module lacks is the bias of one of its projections or convolutions, and is added there. `sizes`
    are those of values that changed.
    """
    rewriting = _Rewriting(module)
    rewriting.put(
        {module.stored_as[name]: to_array(tensor) for name, tensor in tensors.items() if name in module.stored_as}
    )
    for change in changes:
        rewriting.apply(change)
    for name, tensor in tensors.items():
        if name not in module.stored_as:
            rewriting.add_bias(name.removesuffix(".bias"), to_array(tensor))
    if sizes is not None:
        _put_sizes(rewriting.graph, sizes)
    return rewriting.finished()


def save_proto(proto: Any, path: Path, *, external: bool) -> None:
    """Write the file, with weights in `<name>.data` beside it where the input had them so, or above two gigabytes."""
    import onnx

    external = external or sum(len(each.raw_data) for each in proto.graph.initializer) > LARGEST
    options: dict[str, Any] = (
        {"save_as_external_data": True, "location": f"{path.name}.data", "size_threshold": APART} if external else {}
    )
    onnx.save(proto, str(path), **options)


class _Rewriting:
    """A copy of a module's graph while it is changed."""

    def __init__(self, module: OnnxModule) -> None:
        import onnx

        self.module, self.proto = module, onnx.ModelProto()
        self.proto.CopyFrom(module.onnx_file.proto)
        self.graph = self.proto.graph
        self._nodes = {next(filter(None, node.output), ""): node for node in self.graph.node}
        self._before: dict[str, list[Any]] = defaultdict(list)  # first output of a node → nodes to put before it
        self._after: dict[str, list[Any]] = defaultdict(list)
        self._taken = {each.name for each in self.graph.initializer}
        self._taken |= {name for node in self.graph.node for name in (*node.output, node.name)}

    def put(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Give stored arrays other values."""
        from onnx import numpy_helper

        for each in self.graph.initializer:
            if each.name in arrays:
                each.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(arrays[each.name]), each.name))
        for node in self.graph.node:
            if node.op_type == "Constant" and node.output[0] in arrays:
                del node.attribute[:]
                node.attribute.add(name="value", type=4).t.CopyFrom(  # 4: a tensor
                    numpy_helper.from_array(np.ascontiguousarray(arrays[node.output[0]]))
                )

    def apply(self, change: Change) -> None:
        """Change the numbers and attributes of one node."""
        from onnx import helper

        own = next(filter(None, change.node.outputs))
        node = self._nodes[own]
        for place, numbers in change.numbers.items():
            while len(node.input) <= place:
                node.input.append("")
            node.input[place] = self._constant(f"{own}_size_{place}", numbers)
        for place, (times, by) in change.scaled.items():
            times = self._constant(f"{own}_size_{place}_times", times)
            by = self._constant(f"{own}_size_{place}_by", by)
            more, name = self._fresh(f"{own}_size_{place}_more"), self._fresh(f"{own}_size_{place}")
            self._before[own] += [
                helper.make_node("Mul", [node.input[place], times], [more], name=more),
                helper.make_node("Div", [more, by], [name], name=name),
            ]
            node.input[place] = name
        kept = [each for each in node.attribute if each.name not in change.attributes]
        kept += [helper.make_attribute(name, value) for name, value in change.attributes.items() if value is not None]
        copies = [type(each).FromString(each.SerializeToString()) for each in kept]
        del node.attribute[:]
        node.attribute.extend(copies)

    def add_bias(self, layer: str, bias: np.ndarray) -> None:
        """A bias for every node that runs in this layer: an operand where the operator takes one, else added behind."""
        from onnx import helper

        name = self._constant(f"{layer}.bias", bias)
        for place, (found, _) in self.module.layer_of.items():
            if found != layer:
                continue
            own = self.module.onnx_file.nodes[place].outputs[0]
            node = self._nodes[own]
            if node.op_type in ("Gemm", "Conv", "ConvTranspose"):
                del node.input[2:]
                node.input.append(name)
                continue
            before = self._fresh(f"{own}_unbiased")
            node.output[0] = before
            self._after[own].append(helper.make_node("Add", [before, name], [own], name=f"{before}_bias"))

    def finished(self) -> Any:
        """The whole file, without constants that nothing reads any more."""
        read = {name for node in self.graph.node for name in node.input}
        read |= {name for nodes in (*self._before.values(), *self._after.values()) for n in nodes for name in n.input}
        read |= {each.name for each in (*self.graph.input, *self.graph.output)}
        for place in reversed(range(len(self.graph.initializer))):
            if self.graph.initializer[place].name not in read:
                del self.graph.initializer[place]
        if self._before or self._after:
            nodes = [
                each
                for own, node in self._nodes.items()
                for each in (*self._before.pop(own, ()), node, *self._after.pop(own, ()))
            ]
            copies = [type(each).FromString(each.SerializeToString()) for each in nodes]
            del self.graph.node[:]
            self.graph.node.extend(copies)
        return self.proto

    def _constant(self, name: str, numbers: np.ndarray) -> str:
        from onnx import numpy_helper

        name = self._fresh(name)
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(numbers), name))
        return name

    def _fresh(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def _put_sizes(graph: Any, sizes: Mapping[str, Sequence[int]]) -> None:
    """What the file says of sizes; a value whose sizes are not known is left without any."""
    kept = [each for each in graph.value_info if _resized(each, sizes)]
    copies = [type(each).FromString(each.SerializeToString()) for each in kept]
    del graph.value_info[:]
    graph.value_info.extend(copies)
    for each in (*graph.input, *graph.output):
        _resized(each, sizes)


def _resized(info: Any, sizes: Mapping[str, Sequence[int]]) -> bool:
    dims = info.type.tensor_type.shape.dim
    known = sizes.get(info.name)
    if known is None or len(known) != len(dims):
        return not any(dim.dim_value > 0 for dim in dims)
    for dim, size in zip(dims, known, strict=True):
        if dim.dim_value > 0:
            dim.dim_value = size
    return True
