"""From a model on the meta device to its graph: record one forward, then read the families off the axes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.errors import ModelError
from compress.graph import rules as _rules  # registers every rule
from compress.graph.axes import Mismatch, Node, unify
from compress.graph.ends import embeddings
from compress.graph.example import Example
from compress.graph.families import Graph
from compress.graph.infer import infer
from compress.graph.record import Recorder, WrittenSlices, stored_tensors
from compress.graph.untraced import fed_by, span_reason

assert _rules


def trace(model: nn.Module, example: Example) -> Graph:
    """The dependency graph of a model built on the meta device (`model.build.empty_model`).

    Records one forward, of the `example`; the time is linear in operators, whatever the widths, and no weight is
    read. Raises ModelError when the forward itself fails.
    """
    stored, constants, shared = stored_tensors(model)
    inputs = dict(example.tensors)
    recorder = Recorder(stored, constants, inputs)
    _tie_vocabulary(model, recorder)
    blocks = _Blocks(model, recorder)
    try:
        with torch.no_grad(), torch.device("meta"), blocks.watch(), WrittenSlices(), recorder:
            output = model(**inputs, **example.options)
    except (ModelError, KeyboardInterrupt):
        raise
    except Exception as error:
        where = f" in {recorder.block}" if recorder.block else ""
        given = f" (it was given {' and '.join(inputs)} alone)"
        raise ModelError(f"the forward of {type(model).__name__} cannot be recorded{where}: {error}{given}") from error
    _mark_outputs(recorder, output)
    axes: dict[str, Node] = {axis: recorder.dims(inputs[name])[dim] for axis, (name, dim) in example.axes.items()}
    return _pin_fed(infer(recorder, stored, shared, blocks.stacks, blocks.runs, axes), model)


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


class _Blocks:
    """Watches the repeated blocks: children of one ModuleList that turn hidden states into hidden states.

    `stacks` is, per list, its blocks in order of execution; `runs` counts how often each ran.
    """

    def __init__(self, model: nn.Module, recorder: Recorder) -> None:
        self._recorder = recorder
        self.stacks: dict[str, list[str]] = {}
        self.runs: dict[str, int] = {}
        self._candidates: dict[str, nn.Module] = {}
        for name, module in model.named_modules():
            nested = any(name.startswith(known + ".") for known in self._candidates)
            if isinstance(module, nn.ModuleList) and len(module) and not nested:
                self._candidates |= {f"{name}.{i}": child for i, child in enumerate(module)}

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        handles = []
        for name, module in self._candidates.items():
            handles.append(module.register_forward_pre_hook(self._enter(name)))
            handles.append(module.register_forward_hook(self._leave(name), with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str):
        def hook(module: nn.Module, args: tuple) -> None:
            if self._recorder.block is None:
                self._recorder.block = name

        return hook

    def _leave(self, name: str):
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            if self._recorder.block == name:
                self._recorder.block = None
            inside = _states((args, kwargs))
            result = _states(output)
            if inside is None or result is None or inside.shape != result.shape:
                return
            for tensor in (inside, result):
                self._recorder.dims(tensor)[-1].mark("residual")
            self._tie(inside, result)
            stack = self.stacks.setdefault(name.rpartition(".")[0], [])
            if name not in stack:
                stack.append(name)
            self.runs[name] = self.runs.get(name, 0) + 1

        return hook

    def _tie(self, inside: Tensor, result: Tensor) -> None:
        for a, b in zip(self._recorder.dims(inside), self._recorder.dims(result), strict=True):
            try:
                unify(a, b)
            except Mismatch:  # the block's ends are laid out apart: it is no residual block
                _pin_both(a, b)


def _pin_both(a: Node, b: Node) -> None:
    for node in (a, b):
        node.pin("a block's input and output lay it out differently")


def _states(values: Any) -> Tensor | None:
    """The first floating-point tensor of rank 3 or more: the hidden states."""
    return next(
        (x for x in tree_leaves(values) if isinstance(x, Tensor) and x.is_floating_point() and x.dim() >= 3), None
    )
