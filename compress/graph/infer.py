"""Families from axes: which leaves occur in stored tensors, what they are, what must stay whole and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import chain, takewhile
from math import gcd

from torch import Tensor

from compress.graph.axes import Node, find, leaves, product
from compress.graph.blocks import Blocks
from compress.graph.families import Convolution, Family, Graph, Kind, Member, Role, Work
from compress.graph.layout import Axis, Layout, Product, Sum
from compress.graph.leaving import Leaving
from compress.graph.record import Recorder
from compress.graph.routers import ranks, whole_axes
from compress.graph.untraced import map_readers, own_reason, span_reason, spanning, untraced

GROUPED = 8
"""Inner widths of stacked experts are multiples of it: grouped matrix products want rows of 16 bytes, 8 half-precision
numbers."""


def infer(
    recorder: Recorder,
    stored: Mapping[str, Tensor],
    shared: Mapping[str, str],
    blocks: Blocks,
    leaving: Leaving,
    inputs: Mapping[str, Node],
    values: Mapping[str, Tensor] | None = None,
) -> Graph:
    """Name the leaves, group them into families and say why the pinned ones are pinned.

    `inputs` are the leaves named batch and sequence, `values` the other tensors whose layouts are wanted.
    """
    dims = {name: recorder.dims(tensor) for name, tensor in stored.items()}
    names: dict[int, str] = {}
    for name, node in inputs.items():
        names[id(find(node))] = name  # even where a sliding window has cut it
    order = tuple(chain.from_iterable(blocks.stacks.values()))
    uses: dict[int, list[tuple[str, int]]] = {}
    found: dict[int, Node] = {}
    for tensor, nodes in dims.items():
        for dim, node in enumerate(nodes):
            for leaf in leaves(node):
                found[id(leaf)] = leaf
                if (tensor, dim) not in uses.setdefault(id(leaf), []):
                    uses[id(leaf)].append((tensor, dim))
    grouped = whole_axes(dims, found, uses)
    taken: Counter[str] = Counter()
    kinds: dict[str, tuple[Node, Kind]] = {}
    queries = _queries(dims)
    sorts: dict[int, Kind] = {
        key: "queries" if key in queries else _kind(leaf, uses[key], recorder) for key, leaf in found.items()
    }
    streams = [key for key, leaf in found.items() if sorts[key] == "hidden" and "convolved" in leaf.marks]
    for key, leaf in found.items():
        if leaf.size > 1 and key not in names:
            kind = sorts[key]
            staged = len(streams) > 1 and key in streams  # the stream has a width for each stage
            tensors = _writers(uses[key], recorder, blocks) if staged else [tensor for tensor, _ in uses[key]]
            name = _name(kind, leaf, tensors, blocks.stacks if staged else None)
            taken[name] += 1
            names[key] = name if taken[name] == 1 else f"{name}.{taken[name]}"
            kinds[names[key]] = (leaf, kind)
            names.update(dict.fromkeys(grouped.get(key, ()), names[key]))
    layouts = {tensor: tuple(_layout(node, names) for node in nodes) for tensor, nodes in dims.items()}
    owners = Graph(layouts, {}, order, ())
    idle, convolutions = untraced(recorder, stored), _convolutions(recorder)
    wide = {tensor: module for tensor, module in idle.items() if stored[tensor].numel() > 1}
    partly = {owners.block_of(tensor) for tensor in wide}
    result: dict[str, Family] = {}
    for name, (leaf, kind) in kinds.items():
        members = tuple(
            Member(tensor, dim, _role(recorder, tensor, dim), layouts[tensor][dim]) for tensor, dim in uses[id(leaf)]
        )
        stretches, least = ranks(leaf, recorder) if kind == "experts" else (1, 1)
        stacked = kind == "channels" and any(
            len(layouts[member.tensor]) == 3 and member.tensor not in convolutions for member in members
        )
        multiple = gcd(GROUPED, leaf.size) if stacked else 1
        homes = {owners.block_of(m.tensor) for m in members}
        layer = homes.pop() if len(homes) == 1 else None
        inner, tensors = kind not in ("hidden", "vocab"), [member.tensor for member in members]
        whole = layer is not None and layer not in partly  # what lies in one block that ran whole is used up inside it
        reason = _reason(leaf, kind, members)
        if missed := [idle[m.tensor] for m in members if m.tensor in idle]:
            reason = own_reason(missed)
        elif wide and reason is None and not (inner and (whole or leaving.keeps(leaf, tensors, wide))):
            sizes = {leaf.size, *(member.layout.size for member in members)}
            if feeding := spanning(wide, stored, sizes):
                reason = span_reason(feeding)
        averaged = "averaged" in leaf.marks
        result[name] = Family(name, kind, leaf.size, members, layer, reason, (), stretches, least, multiple, averaged)
    for stack in blocks.stacks:
        result[f"{stack}.layers".lstrip(".")] = _layers(stack, blocks, layouts, wide)
    _pin_maps(result, map_readers(wide, stored, _maps(result)))
    place = {name: i for i, name in enumerate(order)}
    counted = Counter(
        (tuple(_layout(d, names) for d in ds), place.get(blocks.of(active) or "")) for ds, active in recorder.products
    )
    works = tuple(Work(ds, block, repeats) for (ds, block), repeats in counted.items())
    notes = tuple(f"{text} ({n} ×)" for text, n in recorder.unknown.items())
    laid = {name: tuple(_layout(d, names) for d in recorder.dims(tensor)) for name, tensor in (values or {}).items()}
    return Graph(layouts, _in_order(result), order, works, notes, dict(shared), idle, convolutions, values=laid)


def _layout(node: Node, names: Mapping[int, str]) -> Layout:
    node = find(node)
    if node.form == "leaf" or id(node) in names:
        return Axis(names.get(id(node), ""), node.size)
    if node.form == "product":
        return Product(tuple(_layout(part, names) for part in product(list(node.parts)).parts))
    return Sum(tuple(_layout(part, names) for part in node.parts))


def _kind(leaf: Node, uses: list[tuple[str, int]], recorder: Recorder) -> Kind:
    roles = {role for use in uses for role in recorder.roles.get(use, ())}
    marks = leaf.marks
    if "vocab" in marks:
        return "vocab"
    if "residual" in marks:
        return "hidden"
    if marks >= {"ranked", "routed"}:
        return "experts"
    if "batched" in marks:
        return "heads"
    if marks & {"contracted", "carried"}:
        return "head_dim"
    if not roles >= {"in", "out"}:
        return "other"
    return "hidden" if marks >= {"added", "convolved"} else "channels"


def _queries(dims: Mapping[str, list[Node]]) -> set[int]:
    """Leaves that count the queries of one key/value head: nested in heads, where keys and values are repeated."""
    counts = Counter(id(leaf) for node in chain.from_iterable(dims.values()) for leaf in leaves(node))
    nested = set()
    for node in chain.from_iterable(dims.values()):
        heads = [leaf for leaf in leaves(node) if leaf.size > 1 and "batched" in leaf.marks]
        rank = {id(leaf): ("broadcast" not in leaf.marks, counts[id(leaf)]) for leaf in heads}
        nested |= {key for key, own in rank.items() if own < max(rank.values())}
    return nested


def _role(recorder: Recorder, tensor: str, dim: int) -> Role:
    roles = recorder.roles.get((tensor, dim), set())
    return "in" if "in" in roles else "out" if "out" in roles else "other"


def _name(kind: Kind, leaf: Node, tensors: list[str], stages: Collection[str] | None = None) -> str:
    """The module that holds all these tensors, and the kind: `model.layers.3.self_attn.heads`.

    The residual stream is called after it only where there are `stages`, by the lists of their blocks.
    """
    if kind == "vocab" or (kind == "hidden" and stages is None):
        return kind
    parts = zip(*(tensor.split(".")[:-1] for tensor in tensors), strict=False)
    prefix = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, parts)]
    if stages is not None and ".".join(prefix) in stages and not prefix[-1].isdecimal():
        prefix.pop()
    word: str = kind
    if kind == "head_dim" and not {"contracted", "carried"} <= leaf.marks:
        word = "qk_dim" if "contracted" in leaf.marks else "v_dim"
    return ".".join([*prefix, word])


def _writers(uses: list[tuple[str, int]], recorder: Recorder, blocks: Blocks) -> list[str]:
    """Of the tensors that a stage's residual stream runs along those that write it, in its blocks if it has any."""
    made = [tensor for tensor, dim in uses if _role(recorder, tensor, dim) != "in"] or [tensor for tensor, _ in uses]
    return [tensor for tensor in made if tensor.startswith(tuple(f"{name}." for name in blocks.runs))] or made


def _reason(leaf: Node, kind: Kind, members: tuple[Member, ...]) -> str | None:
    """Why no group of the leaf may go, None when it may."""
    if leaf.pins:
        return "; ".join(leaf.pins[:2])
    if kind == "hidden" and "output" in leaf.marks:
        return "it is the width of the model's output"
    if kind not in ("hidden", "vocab") and "output" in leaf.marks:
        return "it is a dimension of the model's output"
    if kind not in ("hidden", "vocab", "experts") and "averaged" in leaf.marks:
        return "a normalisation averages over it"
    if kind == "other":
        return "it is not both produced and consumed by matrix products"
    return None


def _layers(stack: str, blocks: Blocks, layouts: Mapping[str, object], idle: Mapping[str, str]) -> Family:
    """The blocks of a list that are alike: one with a tensor of its own (T5's first has the position table) stays, and
    so does one whose ends differ."""
    kept = [name for name in blocks.stacks[stack] if name in blocks.keeps]
    own = {name: frozenset(t[len(name) + 1 :] for t in layouts if t.startswith(name + ".")) for name in kept}
    usual = Counter(own.values()).most_common(1)[0][0]
    alike = tuple(name for name in kept if own[name] <= usual)
    reason = None
    if any(blocks.runs[name] > 1 for name in kept):
        reason = "the blocks share their weights, so that removing one removes no parameters"
    elif missed := [module for tensor, module in idle.items() if tensor.startswith(stack + ".")]:
        reason = own_reason(missed)  # a config may name such blocks by number, and all behind a removed one move up
    elif len(alike) < 2:
        reason = "there is only one block of its sort"
    return Family(f"{stack}.layers", "layers", len(alike), pinned=reason, blocks=alike)


def _convolutions(recorder: Recorder) -> dict[str, Convolution]:
    """The stored weights that convolve; with the mean of a batch norm that alone reads what one of them makes."""
    times = Counter(made.weight for made in recorder.convolutions.values())
    means = {tensor: mean for tensor, mean in recorder.norms if recorder.read[tensor] == 1}
    shared = Counter(mean for _, mean in recorder.norms)
    found = {}
    for tensor, made in recorder.convolutions.items():
        mean = means.get(tensor)
        alone = mean is not None and times[made.weight] == shared[mean] == 1
        found[made.weight] = Convolution(made.groups, made.transposed, mean if alone else None)
    return found


def _maps(found: Mapping[str, Family]) -> int:
    """How many attention maps the blocks make: one for each head, or for each query of a key/value head."""
    queries = {family.layer: family.size for family in found.values() if family.kind == "queries"}
    heads = [family for family in found.values() if family.kind == "heads" and family.layer is not None]
    return sum(family.size * queries.get(family.layer, 1) for family in heads)


def _pin_maps(found: dict[str, Family], readers: list[str]) -> None:
    for name, family in found.items():
        if readers and family.pinned is None and family.kind in ("heads", "queries", "layers"):
            found[name] = replace(family, pinned=span_reason(readers))


def _in_order(found: dict[str, Family]) -> dict[str, Family]:
    """Layers in order, what spans them last."""
    return dict(sorted(found.items(), key=lambda item: (item[1].layer is None, item[1].layer or 0)))
