"""Cutting: every stored tensor is read, sliced, repaired where a repair says so and handed on, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from compress.checkpoint.write import Spec
from compress.console import track
from compress.graph.names import Names
from compress.graph.projection import added, projection
from compress.model.model import Model
from compress.output_format.find import OutputFormat, bias_name, repaired_weights
from compress.surgery.edit import Put
from compress.surgery.experts import Mixes, Orders, Part, mix_of, mixed, moves, parts_out
from compress.surgery.take import take

Kept = Mapping[str, np.ndarray]
Repair = Callable[[str, Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor | None]]
"""`(name, weight [out, in], bias [out] | None, keep bool [in])` → the repaired weight and bias, float32.

A grouped convolution's weight has a first dimension more, `[groups, out / groups, in]`."""


def output_specs(source: Model, kept: Kept, output_format: OutputFormat, mixes: Mixes | None = None) -> list[Spec]:
    """Name on disk, dtype and shape of every tensor of the result, in the order of the input."""
    graph, weights, names = source.graph, source.weights, Names(source.graph, kept)
    shapes = graph.shapes(kept)
    states = {disk: name for name in weights.names("") for disk in weights.disk_names(name)}
    pieces = {} if output_format.remote_code else _pieces(source, kept, mixes or {}, names)
    specs: list[Spec] = []
    for disk, spec in source.checkpoint.tensors.items():
        name = states.get(disk)
        if name is not None and disk in pieces:
            if (part := pieces[disk]) is not None:
                specs.append((part.name, spec.dtype, part.shape))
        elif name is not None and names.new(name) is not None:
            specs.append((_on_disk(output_format, names, name, disk), spec.dtype, shapes[name]))
    for name, shape in output_format.biases.items():
        if names.new(name) is not None:
            specs.append((_new_on_disk(source, output_format, names, name), _dtype(source, name), shape))
    originals = {new: name for name in weights.names("") if (new := names.new(name)) is not None}
    for new, shape in output_format.zeros.items():
        weight = originals[new.removesuffix("bias") + "weight"]
        bias = bias_name(weight)
        specs.append((_new_on_disk(source, output_format, names, bias), _dtype(source, bias), shape))
    return list({name: (name, dtype, shape) for name, dtype, shape in specs}.values())


def cut(
    source: Model,
    kept: Kept,
    output_format: OutputFormat,
    specs: Sequence[Spec],
    put: Put,
    *,
    repair: Repair | None = None,
    mixes: Mixes | None = None,
    orders: Orders | None = None,
) -> None:
    """Hand every tensor of the model that keeps `kept` to `put`; `specs` are its `output_specs`.

    `repair` is called for every weight whose inputs lose positions; `mixes` put experts together, their inner channels
    first put in `orders`. Raises InputError where a weight holds NaN or infinity.
    """
    graph, weights, names = source.graph, source.weights, Names(source.graph, kept)
    mixes = mixes or {}
    pieces = {} if output_format.remote_code else _pieces(source, kept, mixes, names, orders)
    repaired = {name: member.dim for name, member in repaired_weights(source, kept).items()} if repair else {}
    done: set[str] = set()

    def sliced(name: str, tensor: Tensor) -> None:
        for dim, mask in graph.masks(name, kept).items():
            mix = mix_of(graph, name, dim, mixes)
            if mix is None:
                tensor = take(tensor, dim, np.flatnonzero(mask))
            else:
                tensor = mixed(tensor, dim, mix, partial(moves, graph, name, dim, orders))
        for disk in dict.fromkeys(_on_disk(output_format, names, name, d) for d in weights.disk_names(name)):
            put(disk, tensor)
            done.add(disk)

    held = set(weights.names(""))
    beside = {vector[0] for weight in repaired if (vector := added(graph, weight)) is not None}
    for name in track(weights.names(""), "cutting"):
        if names.new(name) is None or name in beside:
            continue
        if not output_format.remote_code and weights.pieces(name):
            for disk in weights.disk_names(name):
                if (part := pieces[disk]) is not None:
                    put(part.name, part.read(source))
                    done.add(part.name)
            continue
        if repair is None or name not in repaired:
            sliced(name, weights.read(name))
            continue
        bias = added(graph, name)
        weight, vector = _repaired(source, kept, name, repaired[name], bias, repair)
        sliced(name, weight)
        if bias is not None and vector is not None:
            sliced(bias[0], vector)
        elif (new := bias_name(name)) in output_format.biases and vector is not None:
            rows = graph.masks(name, kept).get(1 - repaired[name])
            if rows is not None:
                vector = vector[torch.from_numpy(np.flatnonzero(rows))]
            disk = _new_on_disk(source, output_format, names, new)
            put(disk, vector.to(_dtype(source, new)))
            done.add(disk)
    stored = {
        _on_disk(output_format, names, name, d) for name in held for d in weights.disk_names(name) if d not in pieces
    }
    for disk, dtype, shape in specs:
        if disk not in done and disk not in stored:  # a bias that only the new config asks for
            put(disk, torch.zeros(tuple(shape), dtype=dtype))


def _pieces(
    source: Model, kept: Kept, mixes: Mixes, names: Names, orders: Orders | None = None
) -> dict[str, Part | None]:
    """Stored name of every piece → what takes its place, None where it goes."""
    found: dict[str, Part | None] = {}
    for name in source.weights.names(""):
        if source.weights.pieces(name):
            found |= dict.fromkeys(source.weights.disk_names(name))
            if names.new(name) is not None:
                found |= parts_out(source, kept, mixes, names, name, orders)
    return found


def _repaired(
    source: Model, kept: Kept, name: str, dim: int, bias: tuple[str, float] | None, repair: Repair
) -> tuple[Tensor, Tensor | None]:
    """The whole weight and what is added to its result (a tensor and its sign) after the repair, as stored; the removed
    columns are still there."""
    stored, turned = source.weights.read(name), projection(source.graph, name, dim)
    keep = torch.from_numpy(turned.spread(source.graph.masks(name, kept)[dim]))
    if bias is None:
        weight, new = repair(name, turned.matrix(stored).float(), None, keep)
        return turned.stored(weight).to(stored.dtype), new
    vector, sign = source.weights.read(bias[0]), bias[1]
    weight, new = repair(name, turned.matrix(stored).float(), sign * vector.float(), keep)
    assert new is not None
    return turned.stored(weight).to(stored.dtype), (sign * new).to(vector.dtype)


def _on_disk(output_format: OutputFormat, names: Names, name: str, disk: str) -> str:
    """The input's spelling; under the modeling file the state name, as older spellings are known for stock classes."""
    return names.new(name) or name if output_format.remote_code else names.on_disk(name, disk)


def _new_on_disk(source: Model, output_format: OutputFormat, names: Names, bias: str) -> str:
    """Where a bias that the input lacks is stored: beside its weight."""
    weight = bias.removesuffix("bias") + "weight"
    return bias_name(_on_disk(output_format, names, weight, source.weights.disk_names(weight)[0]))


def _dtype(source: Model, bias: str) -> torch.dtype:
    weight = bias.removesuffix("bias") + "weight"
    return source.checkpoint.tensors[source.weights.disk_names(weight)[0]].dtype
