"""Pruned models against the dense one: quality, as the task measures it, and latency, each with its noise."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compress.checkpoint.open import Checkpoint, open_checkpoint
from compress.console import task, warn
from compress.data.tokens import load_tokenizer
from compress.errors import InputError, ModelError
from compress.evaluate.budget import Budget
from compress.evaluate.continuations import PROMPTS, SECONDS, Continuation, continued, writes
from compress.evaluate.latency import Latency, forward
from compress.evaluate.load import held_out, meaningless, named
from compress.evaluate.turns import LEAST, in_turns
from compress.evaluate.visual_tokens import LENGTH as PROMPT
from compress.evaluate.visual_tokens import SAMPLES as PROMPTED
from compress.evaluate.visual_tokens import VisualTokens, looked, prunes_tokens
from compress.evaluate.whole import Streamed, Whole
from compress.inputs.batch import Batch, first
from compress.metrics.change import Change, time_change
from compress.metrics.kind import Figure, Metric, Quality
from compress.model.model import Model
from compress.recipe.part import Part

LARGEST = 2_000_000_000
"""Bytes of both checkpoints together up to which they are loaded whole, side by side."""

SAMPLES, LENGTH = 64, 256

FEWEST = 2
"""Batches that are measured even when that takes longer; larger models read so many at once."""

QUALITY = 0.7
"""Share of the time that goes to quality, the rest to latency."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured on `text`; `notes` say what was not, and why.

    `quality` is the pruned model's, beside the dense one's, None where there is none; `changes`, by figure, say what
    pruning changed and how sure that is. `continuations`: what models that write texts make of the same beginnings.
    `visual_tokens`: what a rule about them saves.
    """

    latency_before: Latency | None = None
    latency_after: Latency | None = None
    quality: Quality | None = None
    changes: dict[str, Change] = field(default_factory=dict)
    text: str | None = None
    notes: list[str] = field(default_factory=list)
    continuations: list[Continuation] = field(default_factory=list)
    visual_tokens: VisualTokens | None = None


class Evaluator:
    """Measures any number of pruned models against one dense model, on the same samples of `data`.

    Both models read batch after batch until the time is up, and then run in turns. How many batches there are the first
    model decides; the later ones read as many, and what the dense model made of them is remembered. In float32 (half
    precision on an accelerator). A model that no real data can be given to has its latency measured only. Above
    2 GB models are read block by block, and not timed. `timed` says whether latency is measured. `last` is the latest
    evaluation.
    """

    def __init__(
        self,
        dense: Model,
        *,
        seed: int = 0,
        device: str = "cpu",
        timed: bool = True,
        data: Part | str | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._source, self._dense, self._seed, self._device, self._timed = dense, dense.checkpoint, seed, device, timed
        self._data = data if data is not None else dense.inputs.held_out(())
        self._clock, self._meaningful = clock, dense.inputs.meaningful(self._dense)
        self._rows: list[Batch] = []
        self._before: list[Any] = []
        self._count: int | None = None
        self._written: list[str] = []
        self.last = Evaluation()

    def __call__(self, folder: Path, seconds: float | None = None) -> Evaluation:
        """The pruned model in `folder` beside the dense one, in about so many `seconds`; None is without end."""
        pruned = open_checkpoint(folder, trust_remote_code=self._dense.trust_remote_code)
        try:
            self.last = self._evaluate(pruned, seconds)
        except (InputError, ModelError) as error:
            warn(f"not evaluated: {error}")
            self.last = Evaluation(notes=[f"not evaluated: {error}"])
        return self.last

    @property
    def dense(self) -> Figure | None:
        """How good the dense model is on the samples that it has read so far, None where that is not measured alone."""
        read = self._before[: self._count or 0]
        return next(iter(self._metric.quality(self._metric.merged(read)).figures), None) if read else None

    def _evaluate(self, pruned: Checkpoint, seconds: float | None) -> Evaluation:
        budget, notes = Budget(seconds, self._clock), list[str]()
        if not self._rows:
            self._rows = self._held_out(LENGTH, SAMPLES)
        theirs = self._source.inputs.reread(self._rows, self._dense, pruned)
        together = self._dense.bytes + pruned.bytes <= LARGEST
        if together:
            one, other = (Whole(checkpoint, self._device) for checkpoint in (self._dense, pruned))
        else:
            one = Streamed(self._dense, self._source.graph, self._device)
            other = Streamed(pruned, Model.of(pruned).graph, self._device)
        after: list[Any] = []
        if self._meaningful:
            after = self._read(one, other, theirs, budget)
        else:
            notes.append(meaningless(self._source.inputs))
        rule = prunes_tokens(pruned.config)
        rows = self._held_out(PROMPT, PROMPTED)[0] if rule else self._rows[0]
        samples = self._samples(rows, pruned)
        times = self._time(one, other, samples, budget, notes, writing=rule) if self._timed else None
        written = self._write(one, other, pruned, limited=budget.limited) if self._meaningful else []
        visual = None
        if rule and isinstance(one, Whole) and isinstance(other, Whole):
            visual = looked(other.model, one.model, rows)
        return replace(self._compared(after, samples, times, notes), continuations=written, visual_tokens=visual)

    def _held_out(self, length: int, samples: int) -> list[Batch]:
        asked: Any = {"data": self._data, "length": length, "samples": samples, "seed": self._seed}
        return held_out(self._source.inputs, self._dense, **asked)

    def _samples(self, rows: Batch, pruned: Checkpoint) -> tuple[Batch, Batch]:
        """The first of the `rows` as each model reads it."""
        sample = first(rows, 1)
        return sample, self._source.inputs.reread([sample], self._dense, pruned)[0]

    def _read(self, one: Whole | Streamed, other: Whole | Streamed, theirs: list[Batch], budget: Budget) -> list[Any]:
        """What the pruned model makes of `theirs`, the batches as it reads them; `_before` and `_count` grow along with
        the first."""
        found: list[Any] = []
        most, streamed = self._count or len(self._rows), isinstance(one, Streamed)
        step = 1 if not streamed else FEWEST if budget.limited else most  # every pass reads all weights
        with task("measuring quality", None if streamed else most) as advance:
            while len(found) < most:
                end = min(len(found) + step, most)
                missing = self._rows[len(self._before) : end]
                if missing:
                    self._before += one.read(self._metric, missing, advance if streamed else _nothing)
                found += other.read(self._metric, theirs[len(found) : end], advance)
                if self._count is None and len(found) >= FEWEST and not budget.holds(QUALITY):
                    break
        self._count = len(found)
        return found

    def _time(
        self,
        one: Whole | Streamed,
        other: Whole | Streamed,
        samples: tuple[Batch, Batch],
        budget: Budget,
        notes: list[str],
        *,
        writing: bool,
    ) -> tuple[list[float], list[float]] | None:
        if not (isinstance(one, Whole) and isinstance(other, Whole)):
            notes.append(f"latency not measured: both models together are above {LARGEST / 1e9:.0f} GB")
            return None
        before = forward(one.model, samples[0], writing=writing)
        after = forward(other.model, samples[1], writing=writing)
        times = in_turns(before, after, budget, label="measuring latency")
        if times is None:
            notes.append(f"latency not measured: {LEAST} rounds take too long; `--evaluate full` takes the time")
        return times

    def _write(
        self, one: Whole | Streamed, other: Whole | Streamed, pruned: Checkpoint, *, limited: bool
    ) -> list[Continuation]:
        """What both models write, of those that do and are in memory, each in its own tokens; the dense one is asked
        once."""
        tokenizer, theirs = load_tokenizer(self._dense), load_tokenizer(pruned)
        if not (isinstance(one, Whole) and isinstance(other, Whole) and tokenizer and theirs and writes(one.model)):
            return []
        seconds = SECONDS if limited else None
        self._written = self._written or continued(one.model, tokenizer, seconds=seconds)
        after = continued(other.model, theirs, seconds=seconds)
        return [Continuation(*three) for three in zip(PROMPTS, self._written, after, strict=True)]

    @property
    def _metric(self) -> Metric[Any]:
        return self._source.task.metric(self._rows[0])

    def _compared(
        self,
        read: list[Any],
        samples: tuple[Batch, Batch],
        times: tuple[list[float], list[float]] | None,
        notes: list[str],
    ) -> Evaluation:
        metric, quality = self._metric, None
        if read:
            quality = metric.quality(metric.merged(read), metric.merged(self._before[: len(read)]))
        changes = dict(quality.changes) if quality is not None else {}
        found = Evaluation(quality=quality, text=named(self._data) if read else None, notes=notes, changes=changes)
        if times is None:
            return found
        changes["latency"] = time_change(*times)
        inputs = self._source.inputs
        before, after = (Latency.of(some, inputs, sample) for some, sample in zip(times, samples, strict=True))
        return replace(found, latency_before=before, latency_after=after)


def _nothing() -> None:
    """The batch counts as read when the pruned model has read it too."""
