"""Repeated blocks: children of a list of modules that turn hidden states into hidden states."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.graph.axes import Mismatch, Node, leaves, unify
from compress.graph.record import Recorder

LISTS = (nn.ModuleList, nn.Sequential)


@dataclass
class Blocks:
    """The blocks of a model: `stacks` are, per list, those it has in order of execution, `runs` counts how often each
    ran. Those in `keeps` give states of the shape that they take, so that a model can do without them.
    """

    stacks: dict[str, list[str]] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    keeps: set[str] = field(default_factory=set)

    def of(self, active: tuple[str, ...]) -> str | None:
        """The block among the modules that run, the outermost first."""
        return next((name for name in active if name in self.runs), None)


class Watch:
    """Watches all that may turn out to be a block while a model runs.

    A list's children are blocks where most of them keep the shape of their states. Else those of the lists inside of
    them are, if any keep it: the layers of stages, whose ends differ. Of a plain sequence of modules, and of images,
    more is asked: that a child keeps an axis which it both contracts and produces, as only a residual block does. Their
    likes that change the shape (a stage's first layer) are then blocks too.
    """

    def __init__(self, model: nn.Module, recorder: Recorder, stored: Mapping[str, Tensor]) -> None:
        self._recorder, self._stored = recorder, stored
        self._lists = {name: own for name, own in model.named_modules() if isinstance(own, LISTS)}
        self._children: dict[str, nn.Module] = {}
        known: set[nn.Module] = set()
        for name, own in self._lists.items():
            for i, child in enumerate(own):
                if child not in known and next(child.parameters(), None) is not None:
                    self._children[f"{name}.{i}".lstrip(".")] = child
                    known.add(child)
        self._seen: dict[str, list[tuple[Tensor, Tensor] | None]] = {}  # child → its states, run by run, if it has any

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Look at what goes in and out of every list's children."""
        handles = []
        for name, module in self._children.items():
            handles.append(module.register_forward_pre_hook(self._enter(name)))
            handles.append(module.register_forward_hook(self._leave(name), with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def found(self) -> Blocks:
        """The blocks of the forward that ran. The states at both ends are one axis each, the residual stream."""
        blocks = Blocks()
        for name in [""] if "" in self._lists else self._inside(""):
            self._choose(name, blocks)
        order = {name: place for place, name in enumerate(self._seen)}
        stacks = {name: sorted(own, key=order.__getitem__) for name, own in blocks.stacks.items()}
        blocks.stacks = dict(sorted(stacks.items(), key=lambda item: order[item[1][0]]))
        return blocks

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple) -> None:
            self._recorder.active = (*self._recorder.active, name)

        return hook

    def _leave(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            self._recorder.active = self._recorder.active[:-1]
            inside, result = _states((args, kwargs)), _states(output)
            ends = None if inside is None or result is None or inside.shape != result.shape else (inside, result)
            self._seen.setdefault(name, []).append(ends)

        return hook

    def _inside(self, name: str) -> list[str]:
        """The outermost lists inside of a list."""
        found: list[str] = []
        for own in self._lists:  # each before those inside of it
            if own != name and own.startswith(f"{name}." if name else "") and not own.startswith(_under(found)):
                found.append(own)
        return found

    def _choose(self, name: str, blocks: Blocks) -> bool:
        """Adds the blocks of a list, or of those inside of it; whether there are any."""
        prefix = f"{name}." if name else ""
        children = [own for own in self._seen if own.rpartition(".")[0] == name and own.startswith(prefix)]
        kept = {child: axis for child in children if (axis := self._residual(name, child)) is not None}
        few = len(kept) * 2 <= len(children)
        if few and any([self._choose(inner, blocks) for inner in self._inside(name)]):
            return True
        if not kept:
            return False
        for child, axis in kept.items():
            for inside, result in filter(None, self._seen[child]):
                for tensor in (inside, result):
                    self._recorder.dims(tensor)[axis].mark("residual")
                self._tie(inside, result)
        alike = {type(self._children[child]) for child, axis in kept.items() if self._strict(name, child)}
        own = [child for child in children if child in kept or type(self._children[child]) in alike]
        blocks.stacks[name] = own
        blocks.runs |= {child: len([x for x in self._seen[child] if x or child not in kept]) for child in own}
        blocks.keeps |= kept.keys()
        return True

    def _strict(self, name: str, child: str) -> bool:
        """Whether only what is seen to be a residual block is one."""
        states = [ends[0].dim() for ends in self._seen[child] if ends is not None]
        return isinstance(self._lists[name], nn.Sequential) or max(states, default=0) > 3

    def _residual(self, name: str, child: str) -> int | None:
        """The dimension of a child's states that is the residual stream; None where it is no residual block."""
        ends = next(filter(None, self._seen[child]), None)
        if ends is None:
            return None
        if not self._strict(name, child):
            return -1
        alike = [own for own in self._lists[name] if type(own) is type(self._children[child])]
        if isinstance(self._lists[name], nn.Sequential) and len(alike) < 2:
            return None
        contracted, produced = self._ends(child)
        inside, result = (self._recorder.dims(tensor) for tensor in ends)
        axes = []
        for place, (one, other) in enumerate(zip(inside, result, strict=True)):
            parts = {id(leaf) for leaf in leaves(one)}
            if one.size > 1 and parts == {id(leaf) for leaf in leaves(other)} and parts <= contracted & produced:
                axes.append(place)
        return None if not axes else axes[-1] if axes[-1] == len(inside) - 1 else axes[0]

    def _ends(self, child: str) -> tuple[set[int], set[int]]:
        """The leaves that matrix products in a child contract, and those that they produce."""
        found: dict[str, set[int]] = {"in": set(), "out": set()}
        for (tensor, dim), roles in self._recorder.roles.items():
            if tensor.startswith(f"{child}."):
                for role in roles:
                    found[role].update(id(leaf) for leaf in leaves(self._recorder.dims(self._stored[tensor])[dim]))
        return found["in"], found["out"]

    def _tie(self, inside: Tensor, result: Tensor) -> None:
        for a, b in zip(self._recorder.dims(inside), self._recorder.dims(result), strict=True):
            try:
                unify(a, b)
            except Mismatch:  # the block's ends are laid out apart: it is no residual block
                _pin_both(a, b)


def _under(names: list[str]) -> tuple[str, ...]:
    """How the names of what is inside of the last of these begin."""
    return (f"{names[-1]}.",) if names else ()


def _pin_both(a: Node, b: Node) -> None:
    for node in (a, b):
        node.pin("a block's input and output lay it out differently")


def _states(values: Any) -> Tensor | None:
    """The first floating-point tensor of rank 3 or more: the hidden states."""
    return next(
        (x for x in tree_leaves(values) if isinstance(x, Tensor) and x.is_floating_point() and x.dim() >= 3), None
    )
