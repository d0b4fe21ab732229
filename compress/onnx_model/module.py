"""An ONNX graph as a torch module: its parameters are the stored arrays, its forward runs the nodes one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.onnx_model import operators as _operators  # registers every operator
from compress.onnx_model.arrays import DTYPES, Numbers, placed, to_tensor
from compress.onnx_model.blocks import Block, Stretch, path, stretches
from compress.onnx_model.file import Node, OnnxFile, is_cache
from compress.onnx_model.layers import LAYERS, Layer, Weight, scopes
from compress.onnx_model.operators.look_up import gather_known
from compress.onnx_model.registry import operator_of
from compress.onnx_model.tree import Stored, Tree
from compress.onnx_model.unknown import by_reference
from compress.onnx_model.uses import last_uses, stored_arrays

assert _operators

Value = Tensor | np.ndarray | None
Values = dict[str, Value]


@dataclass(frozen=True)
class Seen:
    """What went through the graph in one forward: every tensor, and every array of plain numbers, by name.

    Where such an array became a tensor, as an operand among others, that goes by `as_operand`.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def as_operand(name: str, node: Node) -> str:
        """What the array `name` is called as a tensor that `node` reads."""
        return f"{name} in {node.name}"


class OnnxModule(nn.Module):
    """The graph of `file`. `arrays`: name of each parameter and buffer → the name of the stored array that it is.

    Weights of projections, convolutions and normalisations are those of modules of torch's own kinds, with a bias that
    is added behind; the others are parameters of modules that do nothing. Repeated blocks are modules too. With
    `device="meta"` no weight is read. `layers`: place of a node → the module that runs it. While `watched` is set, all
    that goes through the graph is left there.
    """

    def __init__(self, file: OnnxFile, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.file, self._device = file, torch.device(device)
        self.arrays: dict[str, str] = {}
        self.numbers = Numbers(file.versions)
        self.fixed: dict[str, np.ndarray] = {}  # what constants alone give
        self.watched: Seen | None = None
        self.layers: dict[int, tuple[str, Layer]] = {}
        self._parameters_of: dict[str, nn.Parameter] = {}
        self._stored = stored_arrays(file)
        self._makers = {name: node for node in file.nodes for name in node.outputs if name}
        self._readers: Counter[str] = Counter(name for node in file.nodes for name in node.inputs)
        self._readers.update(file.outputs)
        self._absorbed: set[int] = set()
        self._stretches = stretches(file)
        tree = Tree(self)
        tree.add_blocks(Block(stretch, self._run_block) for stretch in self._stretches)
        self._make_layers(tree)
        for name in file.arrays:
            if name in self._stored and name not in self.arrays.values() and self._readers[name]:
                self.arrays[tree.store(path(name), self.tensor(name))] = name
        self._states = {array: state for state, array in reversed(self.arrays.items())}
        self._last_use = last_uses(file)
        self.eval()

    # What layers ask for while they are made (`compress.onnx_model.layers.Weights`).

    def weight(self, value: str) -> Weight | None:
        """The stored array behind a value, through Cast, Identity and the Transpose of a matrix; None without one."""
        turned = False
        while value not in self._stored:
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
        if after.kind != "Add" or after.domain:
            return None
        (other,) = [name for name in after.inputs if name != node.outputs[0]]
        bias = self.weight(other)
        return (after, bias.name) if bias is not None and bias.shape == (width,) else None

    def tensor(self, name: str) -> nn.Parameter:
        """A stored array as a parameter; the same object whenever it is asked for."""
        if name not in self._parameters_of:
            array = self.file.arrays[name]
            meta = self._device.type == "meta"
            made = to_tensor(np.empty(array.shape, array.dtype) if meta else array)
            self._parameters_of[name] = nn.Parameter(made.to(self._device), requires_grad=False)
        return self._parameters_of[name]

    def _make_layers(self, tree: Tree) -> None:
        places = {id(node): place for place, node in enumerate(self.file.nodes)}
        made: dict[tuple[Any, ...], str] = {}
        for place, node in enumerate(self.file.nodes):
            make = LAYERS.get(node.kind) if not node.domain and place not in self._absorbed else None
            layer = make(node, self) if make is not None else None
            if layer is None:
                continue
            if layer.absorbed is not None:
                self._absorbed.add(places[id(layer.absorbed)])
            known = (node.kind, *layer.stored.items(), repr(sorted(node.attributes.items(), key=str)))
            if known not in made:  # else the same weights run again, in the module that is there
                made[known] = tree.add(layer.module, self._named(place, scopes(node, layer.stored.values())))
                self.arrays |= {f"{made[known]}.{own}": array for own, array in layer.stored.items()}
            self.layers[place] = made[known], layer

    def _named(self, place: int, wanted: list[str]) -> list[str]:
        """Names for a layer, those that lie in the block that its node is of."""
        names = [path(name) for name in wanted]
        block = next((s.name for s in self._stretches if s.first <= place < s.end), None)
        if block is None:
            return names
        inside = [name for name in names if name.startswith(block + ".")]
        return inside or [f"{block}.{path(name.rpartition('.')[2])}" for name in names[-1:]]

    # Running.

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """The graph's outputs by name, caches left out; a cache that is not given is empty.

        Raises ModelError, naming it, for a node that cannot be run.
        """
        values: Values = {}
        for each in self.file.inputs:
            if each.name not in inputs and is_cache(each.name):
                inputs[each.name] = self._empty_cache(each, next(iter(inputs.values())))
            if each.name not in inputs:
                raise ModelError(f"{self.file.path.name}: the input {each.name} is not given")
            values[each.name] = inputs[each.name]
        device = next(iter(inputs.values())).device if inputs else self._device
        if self.watched is not None:
            states = self.state_dict(keep_vars=True)
            self.watched.tensors.update({array: states[state] for state, array in self.arrays.items()})
            self.watched.tensors.update({each.name: inputs[each.name] for each in self.file.inputs})
        place = 0
        for stretch in self._stretches:
            self._run_nodes(range(place, stretch.first), values)
            self._call_block(stretch, values)
            place = stretch.end
        self._run_nodes(range(place, len(self.file.nodes)), values)
        results = [name for name in self.file.outputs if not is_cache(name)] or self.file.outputs
        found = {name: self._value(name, values) for name in results}
        return {n: v if isinstance(v, Tensor) else placed(np.asarray(v), device) for n, v in found.items()}

    @staticmethod
    def _empty_cache(info: Any, like: Tensor) -> Tensor:
        """Keys or values of no token, for as many samples as there are in `like`."""
        kind = info.type.tensor_type
        sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in kind.shape.dim]
        return torch.zeros(len(like), *sizes[1:], dtype=DTYPES[kind.elem_type], device=like.device)

    def _call_block(self, stretch: Stretch, values: Values) -> None:
        taken = {name: values[name] for name in stretch.taken}
        tensors = {name: value for name, value in taken.items() if isinstance(value, Tensor)}
        others = {name: value for name, value in taken.items() if name not in tensors}
        made = self.get_submodule(stretch.name)(*tensors.values(), names=tuple(tensors), others=others)
        values.update(zip(stretch.given, made, strict=True))

    def _run_block(self, stretch: Stretch, values: Values) -> Values:
        self._run_nodes(range(stretch.first, stretch.end), values)
        return values

    def _run_nodes(self, places: range, values: Values) -> None:
        for place in places:
            node = self.file.nodes[place]
            if place not in self._absorbed:
                self._run(place, node, values)
            if self.watched is None:
                for name in node.inputs:
                    if self._last_use.get(name) == place:
                        values.pop(name, None)

    def _value(self, name: str, values: Values) -> Value:
        if name in values or not name:
            return values.get(name)
        if name not in self._states:
            return self.file.arrays[name]
        holder, _, own = self._states[name].rpartition(".")
        module = self.get_submodule(holder)
        return module(own) if isinstance(module, Stored) else getattr(module, own)

    def _run(self, place: int, node: Node, values: Values) -> None:
        if place in self.layers:
            name, layer = self.layers[place]
            operand = node.inputs[layer.given]
            given = self._as_tensor(node, operand, self._value(operand, values), self._where(name))
            made: Any = (layer.run(self.get_submodule(name), given),)
            self._keep(values, node.outputs, made)
            if layer.absorbed is not None:
                self._keep(values, layer.absorbed.outputs, made)
            return
        given = [self._value(name, values) for name in node.inputs]
        tensors = [value for value in given if isinstance(value, Tensor)]
        if node.kind in ("Shape", "Size") and not node.domain and tensors:
            sizes = list(tensors[0].shape)[node.get("start", 0) : node.get("end")]
            self._keep(
                values, node.outputs, (np.array(sizes if node.kind == "Shape" else tensors[0].numel(), np.int64),)
            )
        elif not tensors and not node.kind.startswith("Random"):
            self._keep(values, node.outputs, self._numbers_of(node, given))
        else:
            self._keep(
                values, node.outputs, self._computed(node, given, tensors[0].device if tensors else self._device)
            )

    def _where(self, layer: str) -> torch.device:
        """Where a layer's weights lie."""
        return next(self.get_submodule(layer).parameters()).device

    def _numbers_of(self, node: Node, given: list[Value]) -> tuple[np.ndarray, ...]:
        """Of a node that reads no tensor; what constants alone give is remembered."""
        known = all(name in self.file.arrays or name in self.fixed or not name for name in node.inputs)
        if known and node.outputs[0] in self.fixed:
            return tuple(self.fixed[name] for name in node.outputs)
        made = tuple(np.asarray(each) for each in self.numbers(node, given))  # pyright: ignore[reportArgumentType]
        if known:
            self.fixed.update(zip(node.outputs, made, strict=True))
        return made

    def _computed(self, node: Node, given: list[Value], device: torch.device) -> tuple[Value, ...]:
        found = operator_of(node)
        if node.kind == "Gather" and not node.domain and isinstance(given[1], np.ndarray):
            return (gather_known(node, given[0], given[1]),)  # pyright: ignore[reportArgumentType]
        if found is None:
            return self._by_reference(node, given, device, "the operator is not understood")
        for place in found.numbers:
            if node.operand(place) in self.file.arrays:
                given[place] = self.file.arrays[node.operand(place)]
            elif place < len(given) and isinstance(given[place], Tensor):
                raise ModelError(
                    f"{node}: {node.inputs[place]}, which says a size or place, depends on the values of the inputs"
                )
        try:
            made = found.run(node, *self._tensors(node, given, found.numbers, device))
        except ModelError:
            raise
        except NotImplementedError as error:
            return self._by_reference(node, given, device, f"{error} is not understood")
        except Exception as error:
            raise ModelError(f"{node}: {str(error).strip().partition(chr(10))[0]}") from error
        return made if isinstance(made, tuple) else (made,)

    def _by_reference(self, node: Node, given: list[Value], device: torch.device, why: str) -> tuple[Value, ...]:
        """What ONNX's reference makes of it. Raises ModelError, naming the weights that it reads, where it has none."""
        try:
            return by_reference(node, self.numbers, self._tensors(node, given, (), device))
        except ModelError as error:
            weights = ", ".join(name for name in node.inputs if name in self.file.arrays) or "no weight"
            raise ModelError(f"{self.file.path.name}: {error}: {why}; it reads {weights}") from error

    def _tensors(self, node: Node, given: list[Value], numbers: Any, device: torch.device) -> list[Any]:
        return [
            value if place in numbers else self._as_tensor(node, name, value, device)
            for place, (name, value) in enumerate(zip(node.inputs, given, strict=True))
        ]

    def _as_tensor(self, node: Node, name: str, value: Value, device: torch.device) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        made = placed(value, device)
        if self.watched is not None:
            self.watched.tensors[Seen.as_operand(name, node)] = made
        return made

    def _keep(self, values: Values, names: tuple[str, ...], made: tuple[Any, ...]) -> None:
        for name, value in zip(names, made, strict=False):
            if not name:
                continue
            values[name] = value
            if self.watched is not None and isinstance(value, Tensor):
                self.watched.tensors[name] = value
            elif self.watched is not None and value is not None:
                self.watched.numbers[name] = value
