"""An ONNX graph as a torch module: its parameters are the stored arrays, its forward runs the nodes one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.onnx_model import operators as _operators  # registers every operator
from compress.onnx_model.arrays import DTYPES, Numbers, placed
from compress.onnx_model.blocks import Block, Stretch, stretches
from compress.onnx_model.file import Node, OnnxFile, is_cache
from compress.onnx_model.making import make_layers
from compress.onnx_model.operators.look_up import gather_known
from compress.onnx_model.registry import operator_of
from compress.onnx_model.tree import Stored, Tree
from compress.onnx_model.unknown import by_reference
from compress.onnx_model.uses import last_uses

assert _operators

QUANTISED = ("DequantizeLinear", "QuantizeLinear")

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
    """The graph of `onnx_file`. `stored_as`: name of each parameter and buffer → name of the stored array that it is.

    Weights of projections, convolutions and normalisations are those of modules of torch's own kinds, with a bias that
    is added behind; the others are parameters of modules that do nothing. Repeated blocks are modules too. With
    `device="meta"` no weight is read. `layer_of`: place of a node → the module that runs it. While `watched` is set,
    all that goes through the graph is left there.
    """

    def __init__(self, file: OnnxFile, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.onnx_file, self._device = file, torch.device(device)
        self.run_numbers = Numbers(file.versions)
        self.fixed_numbers: dict[str, np.ndarray] = {}  # what constants alone give
        self.watched: Seen | None = None
        self._stretches = stretches(file)
        tree = Tree(self)
        tree.add_blocks(Block(stretch, self._run_block) for stretch in self._stretches)
        made = make_layers(file, self._device, self._stretches, tree)
        self.layer_of, self.stored_as, self._absorbed = made
        self._states = {array: state for state, array in reversed(self.stored_as.items())}
        self._last_use = last_uses(file)
        self._quantised = {name: node for node in file.nodes if node.kind in QUANTISED for name in node.outputs}
        self.eval()

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """The graph's outputs by name, caches left out; a cache that is not given is empty.

        Raises ModelError, naming it, for a node that cannot be run.
        """
        values: Values = {}
        for each in self.onnx_file.inputs:
            if each.name not in inputs and is_cache(each.name):
                inputs[each.name] = self._empty_cache(each, next(iter(inputs.values())))
            if each.name not in inputs:
                raise ModelError(f"{self.onnx_file.path.name}: the input {each.name} is not given")
            values[each.name] = inputs[each.name]
        device = next(iter(inputs.values())).device if inputs else self._device
        if self.watched is not None:
            states = self.state_dict(keep_vars=True)
            self.watched.tensors.update({array: states[state] for state, array in self.stored_as.items()})
            self.watched.tensors.update({each.name: inputs[each.name] for each in self.onnx_file.inputs})
        place = 0
        for stretch in self._stretches:
            self._run_nodes(range(place, stretch.first), values)
            self._call_block(stretch, values)
            place = stretch.end
        self._run_nodes(range(place, len(self.onnx_file.nodes)), values)
        results = [name for name in self.onnx_file.outputs if not is_cache(name)] or self.onnx_file.outputs
        found = {name: self._value(name, values) for name in results}
        return {n: v if isinstance(v, Tensor) else placed(np.asarray(v), device) for n, v in found.items()}

    @staticmethod
    def _empty_cache(info: Any, like: Tensor) -> Tensor:
        """Keys or values of no token, for as many samples as there are in `like`."""
        kind = info.type.tensor_type
        sizes = [max(dim.dim_value, 0) for dim in kind.shape.dim]
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
            node = self.onnx_file.nodes[place]
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
            return self.onnx_file.arrays[name]
        holder, _, own = self._states[name].rpartition(".")
        module = self.get_submodule(holder)
        return module(own) if isinstance(module, Stored) else getattr(module, own)

    def _run(self, place: int, node: Node, values: Values) -> None:
        if place in self.layer_of:
            name, layer = self.layer_of[place]
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
        known = all(name in self.onnx_file.arrays or name in self.fixed_numbers or not name for name in node.inputs)
        if known and node.outputs[0] in self.fixed_numbers:
            return tuple(self.fixed_numbers[name] for name in node.outputs)
        made = tuple(np.asarray(each) for each in self.run_numbers(node, given))  # pyright: ignore[reportArgumentType]
        if known:
            self.fixed_numbers.update(zip(node.outputs, made, strict=True))
        return made

    def _computed(self, node: Node, given: list[Value], device: torch.device) -> tuple[Value, ...]:
        found = operator_of(node)
        if node.kind == "Gather" and not node.domain and isinstance(given[1], np.ndarray):
            return (gather_known(node, given[0], given[1]),)  # pyright: ignore[reportArgumentType]
        if found is None:
            return self._by_reference(node, given, device, "the operator is not understood")
        for place in found.numbers:
            if node.operand(place) in self.onnx_file.arrays:
                given[place] = self.onnx_file.arrays[node.operand(place)]
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
            return by_reference(node, self.run_numbers, self._tensors(node, given, (), device))
        except ModelError as error:
            weights = ", ".join(name for name in node.inputs if name in self.onnx_file.arrays) or "no weight"
            raise ModelError(f"{self.onnx_file.path.name}: {error}: {why}; it reads {weights}") from error

    def _tensors(self, node: Node, given: list[Value], numbers: Any, device: torch.device) -> list[Any]:
        return [
            value if place in numbers else self._as_tensor(node, name, value, device)
            for place, (name, value) in enumerate(zip(node.inputs, given, strict=True))
        ]

    def _as_tensor(self, node: Node, name: str, value: Value, device: torch.device) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        made = placed(value, device)
        if (maker := self._quantised.get(name)) is not None:  # no family: its numbers are looked into no further
            (made,) = torch.ops.compress_onnx.not_understood([], [made], str(maker))
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
