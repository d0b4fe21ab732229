"""Gradients of a model larger than memory: forwards that keep blocks' inputs, then backwards block by block.

A block runs forward without a graph, and what it gives are fresh leaves. What the model's code does between blocks is
differentiated as usual. Backwards, each block is loaded once, recomputed with a graph for batch after batch, and the
gradient of its inputs goes on through the code between blocks into the leaves of earlier blocks. No autograd thread
ever waits for another, so this is the same on every device.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from compress.calibrate.gather import Gather
from compress.calibrate.objective import LOSS, Objective
from compress.model.weights import Weights
from compress.stream.baton import Call, Walk
from compress.stream.stream import Stream, StreamCallbacks
from compress.tasks.choose import task_of

OUTSIDE = 1.0
"""The depth of what lies in no block."""


@dataclass
class Visit:
    """One batch's passage through one block: `sources` are the inputs in the model's graph, `given` what they hold."""

    station: str
    call: Call
    given: list[Any]
    sources: list[Tensor | None]
    spec: TreeSpec
    leaves: list[Tensor]


@dataclass
class Record:
    """What is to be differentiated for one batch, and gradients that need all of its visits before they are squared."""

    walk: Walk
    visits: list[Visit] = field(default_factory=list)
    pending: dict[str, Tensor] = field(default_factory=dict)


class Tape(Stream):
    """Runs batches forward and backward, and tells `gather` the gradients of `gather.gradients`, of the `objective`.

    With `per_sample` every batch must be one sample, whose whole gradient is told at once. After the `final` run,
    blocks are left as soon as they are done. Memory: what enters every block, for all batches of a run.
    """

    grad = True

    def __init__(
        self,
        model: nn.Module,
        weights: Weights,
        blocks: Iterable[str],
        gather: Gather,
        *,
        objective: Objective = LOSS,
        per_sample: bool = False,
        final: bool = True,
        **options: Any,
    ) -> None:
        def forward(**inputs: Any) -> Any:
            with objective.inside(OUTSIDE):
                return model(**inputs)

        blocks = list(blocks)
        callbacks = StreamCallbacks(end=lambda output, batch: None, turn=gather.turn)
        super().__init__(model, weights, blocks, callbacks, forward=forward, **options)
        self.gather, self.per_sample, self.final = gather, per_sample, final
        self.objective, self._task = objective, task_of(model)
        self._depth = {block: place / len(blocks) for place, block in enumerate(blocks)}
        self._records: dict[Walk, Record] = {}
        self._between: list[tuple[str, Tensor]] = []  # parameters outside of blocks that the graph refers to
        self._inside = {name for block in self.blocks for name in self.weights.names(block)}

    def execute(self, walk: Walk) -> Any:
        call = walk.call
        assert call is not None
        if call.station not in self.blocks:
            with self.objective.inside(OUTSIDE):
                return super().execute(walk)
        self.callbacks.turn(walk)
        flat, spec = tree_flatten((call.args, call.kwargs))
        given = [x.detach() if isinstance(x, Tensor) else x for x in flat]
        sources = [x if isinstance(x, Tensor) and x.requires_grad else None for x in flat]
        args, kwargs = tree_unflatten(given, spec)
        with torch.no_grad():
            output = call.forward(*args, **kwargs)
        out, out_spec = tree_flatten(output)
        out = [x.detach().requires_grad_() if _floats(x) else x for x in out]
        leaves = [x for x in out if _floats(x)]
        record = self._records.setdefault(walk, Record(walk))
        bare = Call(call.station, call.forward, (), {}, True)
        record.visits.append(Visit(call.station, bare, given, sources, spec, leaves))
        return tree_unflatten(out, out_spec)

    def end(self, walk: Walk) -> None:
        """The objective of a finished forward is differentiated at once: its logits then need not be kept."""
        record = self._records.setdefault(walk, Record(walk))
        with torch.enable_grad():
            loss = self.objective.start(self._task, walk.output, walk.batch)
        super().end(walk)
        if loss.requires_grad:
            loss.backward(retain_graph=True)
        self._collect(record, self._between)

    def finish(self) -> None:
        """The way back, all batches through a block before the one in front of it."""
        steps = max((len(record.visits) for record in self._records.values()), default=0)
        repeated = {
            visit.station
            for record in self._records.values()
            for i, visit in enumerate(record.visits)
            if any(other.station == visit.station for other in record.visits[:i])
        }
        for step in reversed(range(steps)):
            for record in self._records.values():
                if step < len(record.visits):
                    visit = record.visits.pop()
                    self.enter(visit.station)
                    self._back(record, visit, visit.station in repeated)
            if self.final and self._loaded not in repeated:
                inside = self.weights.names(self._loaded)
                self.gather.finalize(*(name for name in inside if name in self.gather.gradients))
        for record in self._records.values():
            for name, gradient in record.pending.items():
                self.gather.gradient(name, gradient, record.walk)
        self._records.clear()
        self._between.clear()

    def load(self, names: Iterable[str]) -> list[str]:
        loaded = super().load(names)
        for name in loaded:
            if name in self.gather.gradients:
                tensor = self.weights.current(name).requires_grad_()
                if name not in self._inside:
                    self._between.append((name, tensor))
        return loaded

    def _back(self, record: Record, visit: Visit, repeated: bool) -> None:
        inputs = [
            None if source is None else value.detach().requires_grad_()
            for value, source in zip(visit.given, visit.sources, strict=True)
        ]
        merged = [value if own is None else own for value, own in zip(visit.given, inputs, strict=True)]
        args, kwargs = tree_unflatten(merged, visit.spec)
        self.callbacks.turn(record.walk)
        with torch.enable_grad(), self.objective.inside(self._depth[visit.station]):
            output = [x for x in tree_leaves(visit.call.forward(*args, **kwargs)) if _floats(x)]
        pairs = [
            (x, leaf.grad)
            for x, leaf in zip(output, visit.leaves, strict=True)
            if x.requires_grad and leaf.grad is not None
        ]
        if pairs:
            torch.autograd.backward([x for x, _ in pairs], [grad for _, grad in pairs])
        names = [name for name in self.weights.names(visit.station) if name in self.gather.gradients]
        self._collect(record, [(name, self.weights.current(name)) for name in names], repeated)
        onward = [
            (source, own.grad)
            for source, own in zip(visit.sources, inputs, strict=True)
            if source is not None and own is not None and own.grad is not None
        ]
        if onward:
            # Several blocks may be fed through the same operators (T5's encoder output), so the graph is kept.
            torch.autograd.backward([s for s, _ in onward], [grad for _, grad in onward], retain_graph=True)
        self._collect(record, self._between)

    def _collect(self, record: Record, parameters: Iterable[tuple[str, Tensor]], later: bool = True) -> None:
        """Take gradients off parameters; squares of those that grow again have to wait (`later`)."""
        for name, parameter in parameters:
            if parameter.grad is None:
                continue
            if not (later and self.per_sample):
                self.gather.gradient(name, parameter.grad, record.walk)
            elif name in record.pending:
                record.pending[name] += parameter.grad
            else:
                record.pending[name] = parameter.grad
            parameter.grad = None


def _floats(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
