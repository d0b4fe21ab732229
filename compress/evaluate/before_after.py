"""Pruned models against the dense one: perplexity or likeness of embeddings, and latency, each with its noise."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from compress.checkpoint.open import Checkpoint, open_checkpoint
from compress.console import task, warn
from compress.data.tokens import load_tokenizer
from compress.errors import InputError, ModelError
from compress.evaluate.budget import Budget
from compress.evaluate.change import Change, Sampled, likeness_change, loss_change, time_change
from compress.evaluate.latency import Latency, forward
from compress.evaluate.load import OTHER, held_out, named
from compress.evaluate.perplexity import Losses, Perplexity
from compress.evaluate.similarity import Similarity, compare, sampled
from compress.evaluate.turns import LEAST, in_turns
from compress.evaluate.whole import Batch, Read, Streamed, Whole
from compress.model.source import Source
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

    `changes`, by figure, say what pruning changed and how sure that is. `quality` is what of the pruned model can be
    paired with another's on the same texts: its mean loss in nats, or its likeness to the dense model.
    """

    latency_before: Latency | None = None
    latency_after: Latency | None = None
    perplexity_before: Perplexity | None = None
    perplexity_after: Perplexity | None = None
    similarity: Similarity | None = None
    changes: dict[str, Change] = field(default_factory=dict)
    quality: Sampled | None = None
    text: str | None = None
    notes: list[str] = field(default_factory=list)


class Evaluator:
    """Measures any number of pruned models against one dense model, on the same sequences of the text `data`.

    Both models read batch after batch until the time is up, and then run in turns. How many batches there are the first
    model decides; the later ones read as many, and what the dense model made of them is remembered. In float32 (half
    precision on an accelerator). A model without a tokenizer has its latency measured only, on random tokens. Above
    2 GB models are read block by block, and not timed. `timed` says whether latency is measured. `last` is the latest
    evaluation.
    """

    def __init__(
        self,
        dense: Source,
        *,
        seed: int = 0,
        device: str = "cpu",
        timed: bool = True,
        data: Part | str = OTHER,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._source, self._dense, self._seed, self._device, self._timed = dense, dense.checkpoint, seed, device, timed
        self._data, self._clock = data, clock
        self._has_tokenizer = load_tokenizer(self._dense) is not None
        self._rows: list[Batch] = []
        self._before: list[Read] = []
        self._count: int | None = None
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
    def perplexity(self) -> Perplexity | None:
        """The dense model's, on the texts that it has read so far; None where it has none."""
        losses = _merged(self._before[: self._count or 0])
        return losses.perplexity if isinstance(losses, Losses) else None

    def _evaluate(self, pruned: Checkpoint, seconds: float | None) -> Evaluation:
        budget, notes = Budget(seconds, self._clock), list[str]()
        if not self._rows:
            length, samples = LENGTH, SAMPLES
            self._rows = held_out(self._dense, data=self._data, length=length, samples=samples, seed=self._seed)
        together = self._dense.bytes + pruned.bytes <= LARGEST
        if together:
            one, other = (Whole(checkpoint, self._device) for checkpoint in (self._dense, pruned))
        else:
            one = Streamed(self._dense, self._source.graph, self._device)
            other = Streamed(pruned, Source.of(pruned).graph, self._device)
        after: list[Read] = []
        if self._has_tokenizer:
            after = self._read(one, other, budget)
        else:
            notes.append("quality not evaluated: the model has no tokenizer")
        times = self._time(one, other, budget, notes) if self._timed else None
        return self._compared(after, times, notes)

    def _read(self, one: Whole | Streamed, other: Whole | Streamed, budget: Budget) -> list[Read]:
        """What the pruned model makes of the batches; `_before` and `_count` grow along with the first."""
        found: list[Read] = []
        most, streamed = self._count or len(self._rows), isinstance(one, Streamed)
        step = 1 if not streamed else FEWEST if budget.limited else most  # every pass reads all weights
        with task("measuring quality", None if streamed else most) as advance:
            while len(found) < most:
                end = min(len(found) + step, most)
                missing = self._rows[len(self._before) : end]
                if missing:
                    self._before += one.read(missing, advance if streamed else _nothing)
                found += other.read(self._rows[len(found) : end], advance)
                if self._count is None and len(found) >= FEWEST and not budget.holds(QUALITY):
                    break
        self._count = len(found)
        return found

    def _time(
        self, one: Whole | Streamed, other: Whole | Streamed, budget: Budget, notes: list[str]
    ) -> tuple[list[float], list[float]] | None:
        if not (isinstance(one, Whole) and isinstance(other, Whole)):
            notes.append(f"latency not measured: both models together are above {LARGEST / 1e9:.0f} GB")
            return None
        first = self._first
        times = in_turns(forward(one.model, first), forward(other.model, first), budget, label="measuring latency")
        if times is None:
            notes.append(f"latency not measured: {LEAST} rounds take too long; `--evaluate full` takes the time")
        return times

    @property
    def _first(self) -> Batch:
        return {name: value[:1] for name, value in self._rows[0].items()}

    def _compared(
        self, after: list[Read], times: tuple[list[float], list[float]] | None, notes: list[str]
    ) -> Evaluation:
        changes, quality = dict[str, Change](), None
        shape = self._first["input_ids"].shape
        if times is not None:
            changes["latency"] = time_change(*times)
        one, other, alike = _merged(self._before[: len(after)]), _merged(after), None
        if isinstance(one, Losses) and isinstance(other, Losses):
            quality = other.mean
            changes["perplexity"] = loss_change(one.mean, quality)
        elif isinstance(one, Tensor) and isinstance(other, Tensor):
            alike = compare(one, other, self._rows[0]["input_ids"].shape[1])
            found = sampled(one, other)
            changes |= {name: likeness_change(value, len(one)) for name, value in found.items()}
            quality = found.get("ranks")
        return Evaluation(
            latency_before=Latency.of(times[0], shape) if times is not None else None,
            latency_after=Latency.of(times[1], shape) if times is not None else None,
            perplexity_before=one.perplexity if isinstance(one, Losses) else None,
            perplexity_after=other.perplexity if isinstance(other, Losses) else None,
            similarity=alike,
            changes=changes,
            quality=quality,
            text=named(self._data) if after else None,
            notes=notes,
        )


def _merged(read: list[Read]) -> Read | None:
    if not read:
        return None
    if isinstance(read[0], Tensor):
        return torch.cat(cast(list[Tensor], read))
    found = Losses([], [], 0)
    for one in cast(list[Losses], read):
        found += one
    return found


def _nothing() -> None:
    """The batch counts as read when the pruned model has read it too."""
