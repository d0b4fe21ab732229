"""Integers of a module's code that may stand for what is cut: those that its forward reads and that have the size of
something that shrinks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.graph.families import Graph
from compress.graph.layout import Axis, Layout, Product, kept_size
from compress.model.sizes import KNOWN
from compress.model.skeleton import Skeleton

Kept = Mapping[str, np.ndarray]
Place = tuple[str, str]
"""A module, and the path of an integer in it, as `Changes.attributes` has it."""

DEEPEST = 3
"""How far into what an attribute holds integers are looked for."""


@dataclass(frozen=True)
class Choice:
    """One attribute of all modules that are alike, `name` with `*` for numbers: `options` are what its values may
    become, by new names of modules."""

    name: str
    options: tuple[Mapping[Place, int], ...]


def integers(skeleton: Skeleton) -> dict[Place, int]:
    """Every integer above 1 that the forward reads of the user's modules, in the order in which they are read."""
    module = skeleton.empty()
    read: dict[tuple[str, str], None] = {}
    for name, part in module.named_modules():
        if not isinstance(part, KNOWN):
            part.__class__ = _watched(type(part), name, read)
    example = skeleton.given.example()
    with torch.no_grad(), torch.device("meta"):
        module(**example.tensors)
    found: dict[Place, int] = {}
    for name, attribute in read:
        value = vars(module.get_submodule(name))[attribute]
        for path, number in _numbers(value, attribute, DEEPEST):
            found[name, path] = number
    return found


def choices(graph: Graph, kept: Kept, found: Mapping[Place, int], renamed: Mapping[str, str]) -> list[Choice]:
    """What each integer may become: the size that is left of what has its size now, below its module or, where nothing
    below it is cut, below the nearest module around it. `renamed`: old → new names of the modules that are left."""
    options: dict[str, dict[str, dict[Place, int]]] = {}  # attribute → what it stands for → values
    for (module, path), value in found.items():
        if module not in renamed:
            continue
        for what, new in _meanings(graph, kept, module, value):
            own = options.setdefault(_pattern(f"{module}.{path}".lstrip(".")), {})
            own.setdefault(what, {})[renamed[module], path] = new
    return [
        Choice(name, tuple(dict(values) for values in {tuple(sorted(v.items())) for v in meant.values()}))
        for name, meant in options.items()
    ]


def _meanings(graph: Graph, kept: Kept, module: str, value: int) -> Iterator[tuple[str, int]]:
    """What below a module has the size `value` and another one afterwards: what it is, and its new size."""
    sizes = {name: int(mask.sum()) for name, mask in kept.items()}
    while True:
        prefix = module + "." if module else ""
        cut = False
        for tensor, layouts in graph.layouts.items():
            if not tensor.startswith(prefix):
                continue
            for dim, layout in enumerate(layouts):
                for place, part in enumerate(_parts(layout)):
                    old, new = kept_size(part, {}), kept_size(part, sizes)
                    cut |= old != new
                    if old == value != new:
                        yield _pattern(f"{tensor[len(prefix) :]} {dim} {place}"), new
        for name, mask in kept.items():
            family = graph.families[name]
            if family.kind == "layers" and name.startswith(prefix):
                cut = True
                if len(family.blocks) == value:
                    yield "layers", int(mask.sum())
        if cut or not module:
            return
        module = module.rpartition(".")[0]


def _parts(layout: Layout) -> Iterator[Layout]:
    """The layout, everything in it, and runs of its factors."""
    yield layout
    if isinstance(layout, Axis):
        return
    if isinstance(layout, Product):
        count = len(layout.parts)
        for start in range(count):
            for stop in range(start + 2, count + (start > 0)):
                yield Product(layout.parts[start:stop])
    for part in layout.parts:
        yield from _parts(part)


def _numbers(value: Any, path: str, depth: int) -> Iterator[tuple[str, int]]:
    """Path and value of every integer above 1 in what an attribute holds."""
    if type(value) is int:
        if value > 1:
            yield path, value
        return
    if depth == 0 or isinstance(value, nn.Module | Tensor | str | bytes | type) or callable(value):
        return
    if isinstance(value, Mapping):
        inside = [(key, one) for key, one in value.items() if isinstance(key, str) and "." not in key]
    elif isinstance(value, list | tuple):
        inside = [(str(number), one) for number, one in enumerate(value)] if len(value) <= 16 else []
    elif is_dataclass(value):
        inside = [(field.name, getattr(value, field.name)) for field in fields(value)]
    else:
        inside = list(getattr(value, "__dict__", {}).items())
    for key, one in inside:
        yield from _numbers(one, f"{path}.{key}", depth - 1)


def _watched(cls: type, name: str, read: dict[tuple[str, str], None]) -> type:
    def get(self: Any, attribute: str) -> Any:
        value = cls.__getattribute__(self, attribute)  # pyright: ignore[reportCallIssue]
        if not attribute.startswith("_") and attribute in object.__getattribute__(self, "__dict__"):
            read[name, attribute] = None
        return value

    return type(cls.__name__, (cls,), {"__getattribute__": get, "__module__": cls.__module__})


def _pattern(name: str) -> str:
    return re.sub(r"(?<![^.])\d+(?![^. ])", "*", name)
