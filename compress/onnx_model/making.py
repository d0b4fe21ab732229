"""Layers made of the nodes of a graph, each with the stored arrays that are its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from compress.onnx_model.arrays import to_tensor
from compress.onnx_model.blocks import Stretch, path
from compress.onnx_model.file import Node, OnnxFile
from compress.onnx_model.layers import LAYERS, Layer, Weight, scopes
from compress.onnx_model.tree import Tree
from compress.onnx_model.uses import stored_arrays

Made = tuple[dict[int, tuple[str, Layer]], dict[str, str], set[int]]
"""Place of a node → the name of its module, and the layer; state name → stored array; places of absorbed nodes."""


def make_layers(file: OnnxFile, device: torch.device, blocks: Sequence[Stretch], tree: Tree) -> Made:
    """Put a module for every node with weights into the `tree`, and what weights are left."""
    making = Making(file, device, blocks)
    places = {id(node): place for place, node in enumerate(file.nodes)}
    known: dict[tuple[Any, ...], str] = {}
    layers: dict[int, tuple[str, Layer]] = {}
    arrays: dict[str, str] = {}
    absorbed: set[int] = set()
    for place, node in enumerate(file.nodes):
        make = LAYERS.get(node.kind) if not node.domain and place not in absorbed else None
        layer = make(node, making) if make is not None else None
        if layer is None:
            continue
        if layer.absorbed is not None:
            absorbed.add(places[id(layer.absorbed)])
        alike = (node.kind, *layer.stored.items(), repr(sorted(node.attributes.items(), key=str)))
        if alike not in known:  # else the same weights run again, in the module that is there
            known[alike] = tree.add(layer.module, _named(place, scopes(node, layer.stored.values()), blocks))
            arrays |= {f"{known[alike]}.{own}": array for own, array in layer.stored.items()}
        layers[place] = known[alike], layer
    for name in file.arrays:
        if name in making.stored and name not in arrays.values() and making.read(name):
            arrays[tree.store(path(name), making.tensor(name))] = name
    return layers, arrays, absorbed


def _named(place: int, wanted: list[str], blocks: Sequence[Stretch]) -> list[str]:
    """Names for a layer, those that lie in the block that its node is of."""
    names = [path(name) for name in wanted]
    block = next((each.name for each in blocks if each.first <= place < each.end), None)
    if block is None:
        return names
    inside = [name for name in names if name.startswith(block + ".")]
    return inside or [f"{block}.{name.rpartition('.')[2]}" for name in names[-1:]]


class Making:
    """What layers ask for while they are made (`compress.onnx_model.layers.Weights`)."""

    def __init__(self, file: OnnxFile, device: torch.device, blocks: Sequence[Stretch] = ()) -> None:
        self.file, self.device, self.stored = file, device, stored_arrays(file)
        self._blocks = {id(node): each.name for each in blocks for node in file.nodes[each.first : each.end]}
        self._parameters_of: dict[str, nn.Parameter] = {}
        self._makers = {name: node for node in file.nodes for name in node.outputs if name}
        self._readers: Counter[str] = Counter(name for node in file.nodes for name in node.inputs)
        self._readers.update(file.outputs)

    def read(self, name: str) -> bool:
        """Whether any node reads it."""
        return self._readers[name] > 0

    def weight(self, value: str) -> Weight | None:
        """The stored array behind a value, through Cast, Identity and the Transpose of a matrix; None without one."""
        turned = False
        while value not in self.stored:
            node = self._makers.get(value)
            if node is None or node.domain or node.kind not in ("Cast", "Identity", "Transpose"):
                return None
            value = node.inputs[0]
            if node.kind == "Transpose":
                if list(node.get("perm", [1, 0])) != [1, 0]:
                    return None
                turned = not turned
        shape = self.file.arrays[value].shape
        return Weight(value, shape, turned) if len(shape) == 2 or not turned else None

    def bias_after(self, node: Node, width: int) -> tuple[Node, str] | None:
        """The Add that is all that reads the node's output, and the stored vector `[width]` that it adds."""
        if self._readers[node.outputs[0]] != 1 or node.outputs[0] in self.file.outputs:
            return None
        after = next(other for other in self.file.nodes if node.outputs[0] in other.inputs)
        if after.kind != "Add" or after.domain or self._blocks.get(id(node)) != self._blocks.get(id(after)):
            return None
        (other,) = [name for name in after.inputs if name != node.outputs[0]]
        bias = self.weight(other)
        return (after, bias.name) if bias is not None and bias.shape == (width,) else None

    def tensor(self, name: str) -> nn.Parameter:
        """A stored array as a parameter; the same object whenever it is asked for."""
        if name not in self._parameters_of:
            array = self.file.arrays[name]
            meta = self.device.type == "meta"
            made = to_tensor(np.empty(array.shape, array.dtype) if meta else array)
            self._parameters_of[name] = nn.Parameter(made.to(self.device), requires_grad=False)
        return self._parameters_of[name]
