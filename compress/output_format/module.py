"""What a module must know of its new sizes: by rule for torch's own modules, by trying for the user's.

A set of attributes is right when the cut module, traced, has every tensor laid out over axes as the dense one's graph
says it must be: 3 heads of 16 channels are not 4 heads of 12, though a forward runs with either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from typing import Any, cast

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.console import detail
from compress.errors import ModelError
from compress.graph.families import Graph
from compress.graph.layout import Axis, Layout, Product, kept_size
from compress.graph.names import Names
from compress.graph.trace import trace
from compress.model.changes import Changes, get
from compress.model.model import Model
from compress.model.narrow import can_narrow
from compress.model.sizes import KNOWN, agree
from compress.model.skeleton import Skeleton
from compress.output_format.integers import Choice, choices, integers

Kept = Mapping[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]

MOST = 100
"""Sets of attributes that are tried."""


@dataclass(frozen=True)
class Found:
    """The `changes`; the `shapes` of every tensor that is left, by its new name; `edits`: attribute → (old, new)."""

    changes: Changes
    shapes: Shapes
    edits: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Trial:
    """What came of one set of attributes: those that torch's modules then have besides, or the `failure`."""

    attributes: Mapping[str, Mapping[str, Any]]
    failure: str | None = None


def find_changes(source: Model, kept: Kept, biases: Shapes) -> Found:
    """What has to change in the module of `source` when it keeps `kept` and gets `biases`, by their new names.

    Raises ModelError, naming the module, where no integers of its modules make it run as it must.
    """
    graph, names = source.graph, Names(source.graph, kept)
    skeleton = cast(Skeleton, source.checkpoint.architecture)
    shapes = {new: shape for name, shape in graph.shapes(kept).items() if (new := names.new(name)) is not None}
    cut = {
        new: shapes[new]
        for name, layout in graph.layouts.items()
        if (new := names.new(name)) is not None and shapes[new] != tuple(part.size for part in layout)
    }
    changes = Changes(layers=names.layers, shapes=cut, biases=biases)
    changes = replace(changes, narrowed=_narrowed(skeleton.changed(changes).module, cut))
    expected = _expected(graph, kept, names)
    trial = _try(source, skeleton.changed(changes), expected)
    if trial.failure is not None:
        wanted = {old: new for new, old in _renamed(skeleton.module, names)}
        open_to_choice = choices(graph, kept, integers(skeleton), wanted)
        changes, trial = _search(source, skeleton, changes, expected, open_to_choice, trial)
    attributes = {name: dict(values) for name, values in changes.attributes.items()}
    for name, values in trial.attributes.items():
        attributes.setdefault(name, {}).update(values)
    changes = replace(changes, attributes=attributes)
    return Found(changes, {**shapes, **biases}, _edits(skeleton.module, names, attributes))


def _search(
    source: Model,
    skeleton: Skeleton,
    changes: Changes,
    expected: dict[str, Any],
    found: list[Choice],
    plain: Trial,
) -> tuple[Changes, Trial]:
    """The fewest of the `found` choices that make the module right."""

    def attempt(chosen: tuple[int | None, ...]) -> tuple[Changes, Trial]:
        attributes: dict[str, dict[str, Any]] = {}
        for choice, option in zip(found, chosen, strict=True):
            for (module, path), value in ({} if option is None else choice.options[option]).items():
                attributes.setdefault(module, {})[path] = value
        made = replace(changes, attributes=attributes)
        return made, _try(source, skeleton.changed(made), expected)

    failure, best = plain.failure, None
    every = product(*([*range(len(choice.options)), None] for choice in found))
    for count, chosen in enumerate(every):
        made, trial = attempt(chosen)
        if trial.failure is None:
            best = chosen, made, trial
            break
        failure = trial.failure if count == 0 else failure
        if count == MOST:
            break
    if best is None:
        tried = ", ".join(sorted(choice.name for choice in found)) or "none has the size of what was cut"
        raise ModelError(
            f"{failure}. No integers of its modules explain it (tried: {tried}); its code may have a width written "
            f"into it: read it from an attribute or from a tensor's shape, or leave these units whole with `skip`"
        )
    chosen, made, trial = best
    for place, option in enumerate(chosen):
        if option is not None:
            fewer = (*chosen[:place], None, *chosen[place + 1 :])
            other, result = attempt(fewer)
            if result.failure is None:
                chosen, made, trial = fewer, other, result
    detail(f"attributes: {count + 1} sets tried")
    return made, trial


def _try(source: Model, skeleton: Skeleton, expected: dict[str, Any]) -> Trial:
    """Trace the cut module, torch's own modules made to agree with what they are given, and look at its axes."""
    module = skeleton.empty()
    before = {name: _noted(part) for name, part in module.named_modules()}
    inside: list[str] = []

    def entered(name: str, own: nn.Module, args: tuple[Any, ...]) -> None:
        inside.append(name)
        agree(own, _first(args))

    def left(own: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        inside.pop()

    for name, part in module.named_modules():
        agree(part)
        part.register_forward_pre_hook(partial(entered, name))
        part.register_forward_hook(left)
    try:
        graph = trace(module, source.inputs.example())
    except ModelError as error:
        where = inside[-1] if inside else ""
        cause = error.__cause__ or error
        title = type(module.get_submodule(where)).__name__
        said = str(cause).strip().partition("\n")[0]
        return Trial({}, f"{where or 'the module'} ({title}): does not run at the sizes that are left: {said}")
    for name, layouts in graph.layouts.items():
        if name in expected and (own := [nested(layout, {}) for layout in layouts]) != expected[name]:
            where = name.rpartition(".")[0]
            title = type(module.get_submodule(where)).__name__
            shown = f"{name} would be laid out as {own}, not {expected[name]}"
            return Trial({}, f"{where or 'the module'} ({title}): {shown}")
    after = {name: _noted(part) for name, part in module.named_modules()}
    return Trial({name: changed for name in after if (changed := _differing(before[name], after[name]))})


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


def _expected(graph: Graph, kept: Kept, names: Names) -> dict[str, Any]:
    sizes = {name: int(mask.sum()) for name, mask in kept.items()}
    return {
        new: [nested(layout, sizes) for layout in layouts]
        for name, layouts in graph.layouts.items()
        if (new := names.new(name)) is not None
    }


def _narrowed(module: nn.Module, cut: Shapes) -> list[str]:
    """Attentions of torch whose heads together are no longer as wide as what they read."""
    return [
        name
        for name, part in module.named_modules()
        if can_narrow(part) and f"{name}.in_proj_weight".lstrip(".") in cut
    ]


def _renamed(module: nn.Module, names: Names) -> Iterator[tuple[str, str]]:
    """New and old names of the modules that are left."""
    for name, _ in module.named_modules():
        if (new := names.new(name)) is not None:
            yield new, name


def _noted(module: nn.Module) -> dict[str, Any]:
    """Integers, and tuples of them, that a module of torch notes."""
    if not isinstance(module, KNOWN):
        return {}
    return {
        name: value
        for name, value in vars(module).items()
        if type(value) is int or (type(value) is tuple and all(type(one) is int for one in value))
    }


def _differing(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if before.get(name) != value}


def _edits(module: nn.Module, names: Names, attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Attribute → old and new value, by their old names; what torch's modules note of their tensors goes unsaid."""
    old = dict(_renamed(module, names))
    found = {}
    for name, values in attributes.items():
        own = module.get_submodule(old[name])
        for path, value in values.items():
            if not isinstance(own, KNOWN) or path == "groups":
                found[f"{old[name]}.{path}".lstrip(".")] = (get(own, path), value)
    return found


def _first(args: tuple[Any, ...]) -> Tensor | None:
    return next((x for x in tree_leaves(args) if isinstance(x, Tensor)), None)
