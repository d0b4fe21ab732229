"""Recording: one forward on the meta device, each operator handed to its rule as it executes.

No weights, no export, no symbolic trace: Python control flow simply runs, and the cost is linear in operators.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compress.graph.axes import Mismatch, Node, unify
from compress.graph.values import Unread, Values, spelled, tensors_in, written_constants

# Per dimension of a tensor that views a stored one: the stored dimension it is, None where it is not exactly one.
Origin = tuple[str, tuple[int | None, ...]]
Rule = Callable[["Recorder", Any, tuple, dict, Any], None]
RULES: dict[str, Rule] = {}


@dataclass(frozen=True)
class Convolved:
    """What a convolution made: by the stored `weight`, in so many `groups`, over so many dimensions of `positions`."""

    weight: str
    groups: int
    transposed: bool
    positions: int


# fmt: off
NUMBERS_PASS = frozenset((
    "view", "_unsafe_view", "reshape", "expand", "clone", "_to_copy", "contiguous", "detach", "alias", "permute",
    "transpose", "t", "unsqueeze", "squeeze", "slice", "select", "repeat_interleave", "clamp", "clamp_min",
    "clamp_max", "index", "split", "chunk",
))
# fmt: on
"""Operators whose integer result holds the numbers of their operand, elsewhere."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the axis rule of aten operators by name, all overloads: `rule(recorder, op, args, kwargs, output)`.

    A rule unifies the axes of its operands and calls `recorder.bind(output, dims)`; it may raise Mismatch, which pins.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


class Recorder(Unread):
    """Interprets operators over axes. `stored` and `inputs` are the tensors known before the first operator. Of a
    constant in `uniform` all entries along these dimensions are equal, so that any of them may go.

    `products` are the matrix products met: (dims, modules that ran, the outermost first).
    """

    def __init__(
        self,
        stored: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        answer: int = 0,
        uniform: Mapping[str, Collection[int]] | None = None,
    ) -> None:
        super().__init__(answer)
        self._dims: dict[int, list[Node]] = {}
        self._alive: list[Tensor] = []  # ids stay unique only while the tensors live; on meta that costs nothing
        self.origins: dict[int, Origin] = {}
        self.roles: dict[tuple[str, int], set[str]] = {}
        self.products: list[tuple[tuple[Node, ...], tuple[str, ...]]] = []
        self.convolutions: dict[int, Convolved] = {}  # tensor → the convolution that made it
        self.norms: list[tuple[int, str]] = []  # tensors that a batch norm took, and where its mean is stored
        self.unknown: dict[str, int] = {}
        self.numbers: dict[int, Node] = {}  # tensor of integers → the axis whose positions they are
        self.ranked: list[tuple[Node, int]] = []  # axes of which so many best positions are picked
        self.read: Counter[int] = Counter()  # every tensor that some operators had as an operand, and how many
        self.operators = 0
        self.active: tuple[str, ...] = ()  # modules of lists that run now, the outermost first
        for name, tensor in stored.items():
            self.bind(tensor, [Node(n) for n in tensor.shape])
            self.origins[id(tensor)] = (name, tuple(range(tensor.dim())))
        for name, tensor in constants.items():
            dims, alike = pinned(tensor.shape, f"the constant {name} is indexed by it"), (uniform or {}).get(name, ())
            self.bind(tensor, [Node(dim.size) if place in alike else dim for place, dim in enumerate(dims)])
        self.inputs = {id(tensor): name for name, tensor in inputs.items()}
        for tensor in inputs.values():
            self.bind(tensor, [Node(n) for n in tensor.shape])

    def dims(self, tensor: Tensor) -> list[Node]:
        """The axes of a tensor; one never seen before is a constant that python made."""
        if id(tensor) not in self._dims:
            self.bind(tensor, pinned(tensor.shape, "a constant in the model's code is indexed by it"))
        return self._dims[id(tensor)]

    def bind(self, tensor: Tensor, dims: list[Node]) -> None:
        """Say what the axes of an operator's output are."""
        assert [d.size for d in dims] == list(tensor.shape), ([d.size for d in dims], tensor.shape)
        if id(tensor) in self._dims:  # an in-place operator returns its operand
            for old, new in zip(self._dims[id(tensor)], dims, strict=True):
                unify(old, new)
            return
        self._dims[id(tensor)] = dims
        self._alive.append(tensor)

    def reform(self, tensor: Tensor, places: list[int | None]) -> None:
        """An in-place operator gave a tensor another shape: dimension i is now what dimension `places[i]` was, or one
        more of size 1."""
        old = self.dims(tensor)
        self._dims[id(tensor)] = [Node(1) if place is None else old[place] for place in places]
        self.derive(tensor, tensor, places)

    def derive(self, output: Tensor, source: Tensor, places: Iterable[int | None]) -> None:
        """Output dimension i is dimension `places[i]` of `source`: keeps track of stored tensors and inputs."""
        if id(source) in self.origins:
            name, dims = self.origins[id(source)]
            self.origins[id(output)] = (name, tuple(None if p is None else dims[p] for p in places))
        if id(source) in self.inputs:
            self.inputs[id(output)] = self.inputs[id(source)]

    def play(self, tensor: Tensor, dim: int, role: str) -> None:
        """Note the role that a dimension of a stored tensor has in a matrix product."""
        origin = self.origins.get(id(tensor))
        if origin is not None and (place := origin[1][dim]) is not None:
            self.roles.setdefault((origin[0], place), set()).add(role)

    def convolved(self, output: Tensor, by: Convolved) -> None:
        """Note what made a tensor."""
        self.convolutions[id(output)] = by

    def normalised(self, source: Tensor, mean: Tensor) -> None:
        """Note that a batch norm takes `source`, from which it subtracts the stored `mean`."""
        if (origin := self.origins.get(id(mean))) is not None:
            self.norms.append((id(source), origin[0]))

    def is_stored(self, tensor: Tensor) -> bool:
        return id(tensor) in self.origins

    def opaque(self, name: str, operands: list[Tensor], outputs: list[Tensor], reason: str) -> None:
        """No axis survives the operator: pin what goes in, and what comes out."""
        self.unknown[f"{name}: {reason}"] = self.unknown.get(f"{name}: {reason}", 0) + 1
        text = f"the operator {name} is not understood ({reason})"
        for tensor in operands:
            for dim in self.dims(tensor):
                dim.pin(text)
        for tensor in outputs:
            if id(tensor) not in self._dims:
                self.bind(tensor, pinned(tensor.shape, text))

    def part(self, reason: str, dims: list[Node], sizes: list[int]) -> list[Node]:
        """Of dimensions that an operator does something to which is not understood: they are pinned, and so are those
        of the `sizes` that it makes of them. The others may pass."""
        self.unknown[reason] = self.unknown.get(reason, 0) + 1
        text = f"the operator {reason.replace(': ', ' is not understood (', 1)})"
        for dim in dims:
            dim.pin(text)
        return pinned(sizes, text)

    def _scalar(self, tensor: Tensor) -> Any:
        self.read[id(tensor)] += 1
        return super()._scalar(tensor)

    def _guess(self) -> None:
        super()._guess()
        self.unknown |= {f"every entry of a mask at {place} is taken for true": 1 for place in self.masks}

    def saw(self, func: Any, args: Any, kwargs: Any, operands: list[Tensor], result: Any) -> None:
        """Hand the operator to its rule."""
        self.operators += 1
        name = func.overloadpacket.__name__
        self.read.update(map(id, operands))
        handle = RULES.get(name) or RULES.get(name.rstrip("_"))
        if handle is None and torch.Tag.pointwise in func.tags:
            handle = RULES["pointwise"]
        outputs = tensors_in(result)
        if handle is None:
            self.opaque(name, operands, outputs, "no rule")
            return
        try:
            handle(self, func, args, kwargs, result)
        except Mismatch as why:
            self.opaque(name, operands, outputs, str(why))
        if name in NUMBERS_PASS and operands and id(operands[0]) in self.numbers:
            self.numbers.update({id(output): self.numbers[id(operands[0])] for output in outputs})


class WrittenNumbers(TorchFunctionMode):
    """Sees numbers in the model's code before they become tensors, whose values the meta device does not have.

    `x[..., [-1], :]` is read as the slice it is; of `torch.tensor([1, 2])` the values are known.
    """

    def __init__(self, values: Values) -> None:
        super().__init__()
        self._values = values

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if (made := written_constants(self._values, func, args, kwargs or {})) is not None:
            return made
        if (text := spelled(self._values, func, args)) is not None:
            return text
        if func is Tensor.__getitem__ and isinstance(args[1], tuple):
            lists = [part for part in args[1] if isinstance(part, list)]
            if len(lists) == 1 and lists[0] and all(type(n) is int for n in lists[0]):
                args = (args[0], tuple(self._places(part) if isinstance(part, list) else part for part in args[1]))
        return func(*args, **(kwargs or {}))

    def _places(self, numbers: list[int]) -> Any:
        """Numbers that follow each other as a slice, others as a tensor of which they are known."""
        if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
            return slice(numbers[0], None if numbers[-1] == -1 else numbers[-1] + 1)
        return written_constants(self._values, torch.tensor, (numbers,), {})


def pinned(shape: Iterable[int], reason: str) -> list[Node]:
    """Fresh axes that must stay whole."""
    dims = [Node(n) for n in shape]
    for dim in dims:
        dim.pin(reason)
    return dims


def stored_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, str]]:
    """(what the checkpoint stores by its first name, non-persistent buffers, other names of tied tensors)."""
    stored: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in first:
            shared[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            stored[name] = tensor
    constants = {name: b for name, b in model.named_buffers() if id(b) not in first}
    return stored, constants, shared
