"""Numbers in the graph that follow from widths: which of them a cut must change, and into what.

Most of the sizes in a graph are computed from the shapes of its tensors and follow by themselves. Others are constants:
the target of a Reshape holds the heads. From the layout of what a node gives follows how large it has to be; where its
numbers say something else they are changed, and where they cannot be, the widths must stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import gcd
from typing import Any

import numpy as np

from compress.graph.families import Graph
from compress.graph.layout import Layout, families, keep_mask, kept_size
from compress.onnx_model.file import Node
from compress.onnx_model.module import OnnxModule, Seen
from compress.onnx_model.operators.shape import expanded, reshaped, slices, split_sizes

Kept = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Change:
    """Of one node: the operand at a place becomes other `numbers`, or is `scaled` by (times, divided by) where it is
    computed; an attribute becomes another one, or goes (None)."""

    node: Node
    numbers: Mapping[int, np.ndarray] = field(default_factory=dict)
    scaled: Mapping[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Conflict(Exception):
    """What a node computes does not follow the widths; `families` must stay whole."""

    def __init__(self, text: str, names: frozenset[str]) -> None:
        super().__init__(text)
        self.families = names


@dataclass
class Cut:
    """The graph when each family keeps `kept`: sizes of tensors, by their layouts, and values of plain numbers.

    `seen` is of the forward that was traced, and `numbers` becomes what that would compute of the cut model.
    """

    module: OnnxModule
    graph: Graph
    seen: Seen
    kept: Kept
    numbers: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sizes = {name: int(mask.sum()) for name, mask in self.kept.items()}

    def layouts(self, name: str) -> tuple[Layout, ...] | None:
        """Of a tensor: a value, or a stored array; None of plain numbers."""
        return self.graph.values.get(name)

    def sizes(self, name: str) -> list[int]:
        """How large a tensor is in the cut model."""
        return [kept_size(layout, self._sizes) for layout in self.layouts(name) or ()]

    def mask(self, name: str, dim: int) -> np.ndarray:
        """Which positions of a tensor's dimension stay."""
        return keep_mask((self.layouts(name) or ())[dim], self.kept)

    def operand(self, node: Node, place: int) -> np.ndarray | None:
        """The numbers at a place of a node, in the cut model."""
        name = node.operand(place)
        if not name or self.layouts(name) is not None:
            return None
        return self.numbers[name] if name in self.numbers else self.module.onnx_file.arrays.get(name)

    def conflict(self, node: Node) -> Conflict:
        """The node's numbers cannot follow: whatever changed of what it reads and gives must stay."""
        layouts = [layout for name in (*node.inputs, *node.outputs) for layout in self.layouts(name) or ()]
        names = {name for layout in layouts for name in families(layout) if name in self.kept}
        return Conflict(f"the sizes that {node} asks for do not follow it", frozenset(names))

    def changes(self) -> Iterator[Change]:
        """What must change of the graph, node by node. Raises Conflict."""
        for node in self.module.onnx_file.nodes:
            if all(self.layouts(name) is None for name in node.outputs if name):
                self._follow(node)
                continue
            self._check_constants(node)
            if (change := self._change(node)) is not None:
                yield change

    def _change(self, node: Node) -> Change | None:
        found = RESIZED.get((node.domain, node.kind))
        change = found(node, self) if found is not None else None
        if change is None or not change.numbers:
            return change
        numbers, scaled = dict(change.numbers), {}
        for place, wanted in change.numbers.items():
            name = node.operand(place)
            if not name or self._is_constant(name):
                continue
            now = self.operand(node, place)
            assert now is not None
            if now.shape != wanted.shape or node.kind not in ("Reshape", "Expand"):
                raise self.conflict(node)
            common = [max(gcd(int(a), int(b)), 1) for a, b in zip(wanted, now, strict=True)]
            same = (wanted == now) | (now <= 0)
            times = np.where(same, 1, wanted // common).astype(np.int64)
            scaled[place] = times, np.where(same, 1, now // common).astype(np.int64)
            del numbers[place]
        return Change(node, numbers, scaled, change.attributes)

    def _is_constant(self, name: str) -> bool:
        return name in self.module.onnx_file.arrays or name in self.module.fixed_numbers

    def _follow(self, node: Node) -> None:
        """The plain numbers that a node gives in the cut model."""
        if node.kind == "Shape" and not node.domain and self.layouts(node.inputs[0]) is not None:
            sizes = self.sizes(node.inputs[0])[node.get("start", 0) : node.get("end")]
            made: Any = [np.array(sizes, np.int64)]
        elif node.kind == "Size" and not node.domain and self.layouts(node.inputs[0]) is not None:
            made = [np.array(np.prod(self.sizes(node.inputs[0])), np.int64)]
        elif all(self._is_dense(name) for name in node.inputs):
            made = [self.seen.numbers.get(name) for name in node.outputs]
        else:
            given = [self.operand(node, place) for place in range(len(node.inputs))]
            made = [np.asarray(each) for each in self.module.run_numbers(node, given)]
        self.numbers.update({n: v for n, v in zip(node.outputs, made, strict=False) if n and v is not None})

    def _is_dense(self, name: str) -> bool:
        """Whether plain numbers are what they were."""
        return name not in self.numbers or np.array_equal(self.numbers[name], self.seen.numbers[name])

    def _check_constants(self, node: Node) -> None:
        """Numbers that are operands among tensors must be as large as these, and what they were."""
        for name in node.inputs:
            layouts = self.graph.values.get(Seen.as_operand(name, node)) if name else None
            if layouts is None:
                continue
            value = self.numbers[name] if name in self.numbers else self.module.onnx_file.arrays[name]
            before = self.seen.numbers.get(name, value)
            if list(value.shape) != [kept_size(layout, self._sizes) for layout in layouts]:
                raise self.conflict(node)
            if not np.array_equal(value.flat[:1], before.flat[:1]):
                raise Conflict(f"{node} computes with a width", self._behind(name))

    def _behind(self, name: str) -> frozenset[str]:
        """Families whose widths numbers are computed from."""
        makers = {made: node for node in self.module.onnx_file.nodes for made in node.outputs}
        found, todo, done = set[str](), [name], set[str]()
        while todo:
            if (name := todo.pop()) in done:
                continue
            done.add(name)
            for layout in self.layouts(name) or ():
                found |= {family for family in families(layout) if family in self.kept}
            if self.layouts(name) is None and name in makers:
                todo += makers[name].inputs
        return frozenset(found)


Resize = Callable[[Node, Cut], "Change | None"]
RESIZED: dict[tuple[str, str], Resize] = {}


def resized(*kinds: str, domain: str = "") -> Callable[[Resize], Resize]:
    """Register what must change of a node of these kinds so that it gives what is wanted; None where nothing must."""

    def register(function: Resize) -> Resize:
        for kind in kinds:
            RESIZED[domain, kind] = function
        return function

    return register


@resized("Reshape")
def reshape(node: Node, cut: Cut) -> Change | None:
    target, wanted, given = cut.operand(node, 1), cut.sizes(node.outputs[0]), cut.sizes(node.inputs[0])
    assert target is not None
    if _whole(reshaped(node, given, target), given) == wanted:
        return None
    new = np.array([old if old <= 0 else size for old, size in zip(target, wanted, strict=True)], np.int64)
    if _whole(reshaped(node, given, new), given) != wanted:
        raise cut.conflict(node)
    return Change(node, {1: new})


def _whole(target: list[int], given: list[int]) -> list[int]:
    """A target with a size in place of −1."""
    known = int(np.prod([size for size in target if size != -1], dtype=np.int64))
    return [int(np.prod(given, dtype=np.int64)) // max(known, 1) if size == -1 else size for size in target]


@resized("Expand")
def expand(node: Node, cut: Cut) -> Change | None:
    target, wanted, given = cut.operand(node, 1), cut.sizes(node.outputs[0]), cut.sizes(node.inputs[0])
    assert target is not None
    try:
        if expanded(given, target) == wanted:
            return None
    except ValueError:  # they do not fit each other any more
        pass
    own = wanted[len(wanted) - len(target) :]
    return Change(
        node, {1: np.array([1 if old == 1 else size for old, size in zip(target, own, strict=True)], np.int64)}
    )


@resized("Tile")
def tile(node: Node, cut: Cut) -> Change | None:
    times, wanted, given = cut.operand(node, 1), cut.sizes(node.outputs[0]), cut.sizes(node.inputs[0])
    assert times is not None
    if [a * int(b) for a, b in zip(given, times, strict=True)] == wanted:
        return None
    if any(size % one for size, one in zip(wanted, given, strict=True)):
        raise cut.conflict(node)
    return Change(node, {1: np.array([size // one for size, one in zip(wanted, given, strict=True)], np.int64)})


@resized("Split")
def split(node: Node, cut: Cut) -> Change | None:
    axis, given = node.get("axis", 0), cut.sizes(node.inputs[0])
    wanted = [cut.sizes(name)[axis] for name in node.outputs]
    if split_sizes(node, given, cut.operand(node, 1)) == wanted:
        return None
    if node.version < 13:
        return Change(node, attributes={"split": wanted})
    return Change(node, {1: np.array(wanted, np.int64)}, attributes={"num_outputs": None})


@resized("Slice")
def slice_(node: Node, cut: Cut) -> Change | None:
    operands = [cut.operand(node, place) for place in range(1, 5)]
    layouts = cut.layouts(node.inputs[0]) or ()
    parts = slices(node, len(layouts), *operands)
    new = []
    for axis, start, end, step in parts:
        mask = cut.mask(node.inputs[0], axis)
        places = _kept_places(mask, np.arange(len(mask))[start:end:step])
        if np.array_equal(np.arange(mask.sum())[start:end:step], places):
            new.append((start, end))
        elif step > 0 and len(places) and (np.diff(places) == step).all():
            new.append((int(places[0]), int(places[-1]) + 1))
        else:
            raise cut.conflict(node)
    if new == [(start, end) for _, start, end, _ in parts]:
        return None
    starts, ends = ([pair[side] for pair in new] for side in (0, 1))
    if operands[0] is None:
        return Change(node, attributes={"starts": starts, "ends": ends})
    return Change(node, {1: np.array(starts, operands[0].dtype), 2: np.array(ends, operands[0].dtype)})


def _kept_places(mask: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Where the positions `places` lie among those that stay."""
    return (np.cumsum(mask) - 1)[places[mask[places]]]


@resized("Gather")
def gather(node: Node, cut: Cut) -> Change | None:
    places = cut.operand(node, 1)
    layouts = cut.layouts(node.inputs[0])
    if places is None or layouts is None:
        return None
    axis = node.get("axis", 0) % len(layouts)
    mask = cut.mask(node.inputs[0], axis)
    if mask.all():
        return None
    new = _kept_places(mask, np.where(places < 0, places + len(mask), places).reshape(-1))
    if places.ndim != 1:
        if len(new) != places.size:
            raise cut.conflict(node)
        new = new.reshape(places.shape)
    return Change(node, {1: new.astype(places.dtype)})


@resized("Resize")
def resize(node: Node, cut: Cut) -> Change | None:
    sizes = cut.operand(node, 3)
    wanted = cut.sizes(node.outputs[0])
    if sizes is None or not sizes.size or sizes.tolist() == wanted:
        return None
    return Change(node, {3: np.array(wanted, np.int64)})


@resized("Conv")
def convolution(node: Node, cut: Cut) -> Change | None:
    groups = cut.sizes(node.inputs[0])[1] // cut.sizes(node.inputs[1])[1]
    return None if groups == node.get("group", 1) else Change(node, attributes={"group": groups})


@resized("ConvTranspose")
def transposed(node: Node, cut: Cut) -> Change | None:
    groups = cut.sizes(node.outputs[0])[1] // cut.sizes(node.inputs[1])[1]
    return None if groups == node.get("group", 1) else Change(node, attributes={"group": groups})
