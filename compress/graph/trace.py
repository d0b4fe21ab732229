"""From a model on the meta device to its graph: record one forward, then read the families off the axes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.errors import ModelError
from compress.graph import rules as _rules  # registers every rule
from compress.graph.axes import Node, find, unify
from compress.graph.blocks import Watch
from compress.graph.branches import both_ways
from compress.graph.ends import embeddings
from compress.graph.example import Example
from compress.graph.families import Graph
from compress.graph.infer import infer
from compress.graph.leaving import Leaving
from compress.graph.record import Recorder, WrittenNumbers, stored_tensors
from compress.graph.untraced import fed_by, span_reason
from compress.graph.values import Values

assert _rules


def trace(
    model: nn.Module,
    example: Example,
    left: Mapping[str, Tensor] | None = None,
    uniform: Mapping[str, Collection[int]] | None = None,
) -> Graph:
    """The dependency graph of a model built on the meta device (`model.build.empty_model`).

    Records one forward, of the `example`, and another one where python branches on values that are not known; the time
    is linear in operators, whatever the widths, and no weight is read. `left`: where the model's forward leaves
    tensors by name, whose layouts are then the graph's `values`. `uniform`: buffers that are not stored, with the
    dimensions along which all their entries are equal; their layouts are `values` too. Raises ModelError when the
    forward itself fails.
    """
    graph, branches = _recorded(model, example, 0, left, uniform)
    return both_ways(graph, branches, lambda: _recorded(model, example, 1, left, uniform)[0]) if branches else graph


def _recorded(
    model: nn.Module,
    example: Example,
    answer: int,
    left: Mapping[str, Tensor] | None,
    uniform: Mapping[str, Collection[int]] | None,
) -> tuple[Graph, set[str]]:
    """The graph of one forward, and where in it python branched on values that were taken for `answer`."""
    stored, constants, shared = stored_tensors(model)
    values = Values()
    inputs = values.lend(example.tensors)
    recorder = Recorder(stored, constants, inputs, answer, uniform)
    recorder.values = values
    _tie_vocabulary(model, recorder)
    watch, leaving = Watch(model, recorder, stored), Leaving(model, recorder)
    try:
        with torch.no_grad(), torch.device("meta"), watch.watch(), leaving.watch(), WrittenNumbers(values), recorder:
            output = model(**inputs, **example.options)
    except (ModelError, KeyboardInterrupt):
        raise
    except Exception as error:
        where = f" in {recorder.active[0]}" if recorder.active else ""
        given = f" (it was given {' and '.join(inputs)} alone)"
        raise ModelError(f"the forward of {type(model).__name__} cannot be recorded{where}: {error}{given}") from error
    _mark_outputs(recorder, output)
    axes: dict[str, Node] = {axis: recorder.dims(inputs[name])[dim] for axis, (name, dim) in example.axes.items()}
    _pin_inputs(recorder, {name: x for name, x in inputs.items() if name not in example.caches}, axes)
    wanted = {**(left or {}), **{name: constants[name] for name in uniform or ()}}
    graph = infer(recorder, stored, shared, watch.found(), leaving, axes, wanted)
    return _pin_fed(graph, model), recorder.branches


def _pin_inputs(recorder: Recorder, inputs: Mapping[str, Tensor], axes: Mapping[str, Node]) -> None:
    """What is given to the model keeps its width: the colours of an image."""
    free = {id(find(node)) for node in axes.values()}
    for tensor in inputs.values():
        for node in recorder.dims(tensor) if tensor.is_floating_point() else ():
            if id(find(node)) not in free:
                node.pin("it is a dimension of the model's input")


def _pin_fed(graph: Graph, model: nn.Module) -> Graph:
    """Blocks that may be given, by number, what the trace did not compute stay: those behind a removed one move up."""
    pinned = {
        name: replace(family, pinned=span_reason(feeding))
        for name, family in graph.families.items()
        if family.kind == "layers" and family.pinned is None
        if (feeding := fed_by(model, name.removesuffix(".layers"), graph.untraced))
    }
    return replace(graph, families={**graph.families, **pinned}) if pinned else graph


def _mark_outputs(recorder: Recorder, output: Any) -> None:
    """What leaves the model must keep its width. With logits there, the rest (states, caches) is by the way."""
    named = dict(output.items()) if hasattr(output, "items") else {"": output}
    results = [named["logits"]] if "logits" in named else [v for k, v in named.items() if "past" not in k]
    for tensor in tree_leaves(results):
        if isinstance(tensor, Tensor):
            for dim in recorder.dims(tensor):
                dim.mark("output")


def _tie_vocabulary(model: nn.Module, recorder: Recorder) -> None:
    """Token ids mean the same going in and coming out, tied weights or not."""
    ends = [embeddings(model, "input"), embeddings(model, "output")]
    rows = [recorder.dims(weight)[0] for end in ends if isinstance(weight := getattr(end, "weight", None), Tensor)]
    if len(rows) == 2 and rows[0].size == rows[1].size:
        unify(*rows)
