"""One try: a cut module is traced, torch's own modules made to agree with what they are given, its axes looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from compress.errors import ModelError
from compress.graph.families import Graph
from compress.graph.layout import Axis, Layout, Product, kept_size
from compress.graph.names import Names
from compress.graph.values import line_of_code
from compress.model.model import Model
from compress.model.sizes import KNOWN, agree
from compress.model.skeleton import Skeleton
from compress.model.views import SPLITS, sizes_of, split_dim

Parts = Mapping[str, Sequence[Sequence[int]]]
"""By module, for each split of its forward, the sizes of the parts."""


@dataclass(frozen=True)
class View:
    """A view that does not fit its input: the `number`-th in the forward of `module`. A size in one of the `places`
    could follow the input."""

    module: str
    number: int
    places: tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """What came of a try: the attributes that torch's modules have then, or the `failure`, which may be a `view`'s, or
    that of a `split`, by module and number, whose parts are not those of the plan."""

    attributes: Mapping[str, Mapping[str, Any]]
    failure: str | None = None
    view: View | None = None
    split: tuple[str, int] | None = None


def attempt(source: Model, skeleton: Skeleton, expected: Mapping[str, Any], parts: Parts) -> Trial:
    """Whether the module of `skeleton` runs, with every tensor laid out as `expected` (see `nested`). `parts`: what
    the plan makes of its splits' parts."""
    module = skeleton.empty()
    before = {name: noted(part) for name, part in module.named_modules()}
    views = _Views(parts)
    for part in module.modules():
        agree(part)
    try:
        with views.watch(module), views:
            graph = skeleton.graph(module, source.inputs.example())
    except ModelError as error:
        said = str(error.__cause__ or error).strip().partition("\n")[0]
        where = views.where
        failure = f"{_titled(module, where)}: does not run at the sizes that are left: {said}"
        return Trial({}, failure, views.failed(), views.split)
    for name, layouts in graph.layouts.items():
        if name in expected and (own := [nested(layout, {}) for layout in layouts]) != expected[name]:
            where, shown = name.rpartition(".")[0], f"{name} would be laid out as {own}, not {expected[name]}"
            return Trial({}, f"{_titled(module, where)}: {shown}", split=views.split)
    after = {name: noted(part) for name, part in module.named_modules()}
    return Trial({name: changed for name in after if (changed := _differing(before[name], after[name]))})


def expected(graph: Graph, kept: Mapping[str, np.ndarray], names: Names) -> dict[str, list[Any]]:
    """How every tensor that is left, by its new name, must be put together of axes."""
    sizes = {name: int(mask.sum()) for name, mask in kept.items()}
    return {
        new: [nested(layout, sizes) for layout in layouts]
        for name, layouts in graph.layouts.items()
        if (new := names.new(name)) is not None
    }


def nested(layout: Layout, sizes: Mapping[str, int]) -> Any:
    """How a dimension is put together of axes, by their sizes alone: products as tuples, sums as lists."""
    if isinstance(layout, Axis):
        return kept_size(layout, sizes)
    parts = [nested(part, sizes) for part in layout.parts]
    if isinstance(layout, Product):
        flat = list(chain.from_iterable(part if isinstance(part, tuple) else (part,) for part in parts if part != 1))
        return tuple(flat) if len(flat) > 1 else flat[0] if flat else 1
    joined = list(chain.from_iterable(part if isinstance(part, list) else [part] for part in parts if part != 0))
    return joined if len(joined) > 1 else joined[0] if joined else 0


def noted(module: nn.Module) -> dict[str, Any]:
    """Integers, and tuples of them, that a module of torch notes; nothing of others."""
    if not isinstance(module, KNOWN):
        return {}
    return {
        name: value
        for name, value in vars(module).items()
        if type(value) is int or (type(value) is tuple and all(type(one) is int for one in value))
    }


def lines_of_views(source: Model, skeleton: Skeleton) -> tuple[dict[str, list[str]], dict[str, list[list[Layout]]]]:
    """By module, the lines of code that its views stand in, in order: modules of one class may run different ones. And
    of its splits what the parts are along the dimension that is split."""
    module, views, left = skeleton.empty(), _Views({}), dict[str, Tensor]()
    with views.watch(module), views:
        views.left = left
        graph = skeleton.graph(module, source.inputs.example(), left)
    splits: dict[str, list[list[Layout]]] = {}
    for name, dims in views.dims.items():
        for number, (dim, count) in enumerate(dims):
            layouts = [graph.values[_part(name, number, place)][dim] for place in range(count)]
            splits.setdefault(name, []).append(layouts)
    return views.lines, splits


class _Views(TorchFunctionMode):
    """Counts the views and splits of each module's forward, and knows the one that fails and the module that runs."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self._parts = parts
        self.split: tuple[str, int] | None = None  # the first whose parts are not those of the plan
        self.dims: dict[str, list[tuple[int, int]]] = {}  # of each module's splits: the dimension, and how many parts
        self.left: dict[str, Tensor] | None = None  # where the parts go, if they are wanted
        self._inside: list[list[Any]] = []  # the modules that run: name, and views so far
        self._failing: tuple[Any, list[int]] | None = None
        self.lines: dict[str, list[str]] = {}  # of each module's last run

    @property
    def where(self) -> str:
        """The innermost module that runs, "" for the whole."""
        return self._inside[-1][0] if self._inside else ""

    @contextmanager
    def watch(self, module: nn.Module) -> Any:
        """Know which module runs, and have torch's own agree with what they are given."""
        handles = []
        for name, part in module.named_modules():
            handles.append(part.register_forward_pre_hook(partial(self._enter, name)))
            handles.append(part.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def failed(self) -> View | None:
        """The view that did not fit, where one did and a size of it can follow the input."""
        if self._failing is None or not self._inside:
            return None
        shape, sizes = self._failing
        places = tuple(
            place
            for place, size in enumerate(sizes)
            if size > 1 and prod(shape) % max(prod(sizes) // size, 1) == 0 and -1 not in sizes
        )
        name, count = self._inside[-1]
        return View(name, count - 1, places) if places else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in SPLITS and self._inside:
            return self._split(func, args, kwargs or {})
        sizes = sizes_of(func, args, kwargs or {})
        if sizes is None:
            return func(*args, **(kwargs or {}))
        line = line_of_code()
        for frame in self._inside:
            frame[1] += 1
            self.lines[frame[0]].append(line)
        self._failing = tuple(args[0].shape), sizes
        result = func(*args, **(kwargs or {}))
        self._failing = None
        return result

    def _split(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = self.where
        number, planned = len(self.dims[name]), self._parts.get(name, ())
        wanted = planned[number] if number < len(planned) else None
        dim = split_dim(args, kwargs)
        self.dims[name].append((dim, 0))
        if self.split is None and wanted is not None:
            self.split = name, number  # until it ran
        made = func(*args, **kwargs)
        self.dims[name][-1] = dim, len(made)
        if self.split == (name, number) and [part.shape[dim] for part in made] == wanted:
            self.split = None
        if self.left is not None:
            self.left.update({_part(name, number, place): part for place, part in enumerate(made)})
        return made

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._inside.append([name, 0])
        self.lines[name] = []
        self.dims[name] = []
        agree(module, next((x for x in tree_leaves(args) if isinstance(x, Tensor)), None))

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._inside.pop()


def _part(module: str, number: int, place: int) -> str:
    return f"{module} {number} {place}"


def _differing(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if before.get(name) != value}


def _titled(module: nn.Module, name: str) -> str:
    return f"{name or 'the module'} ({type(module.get_submodule(name)).__name__})"
