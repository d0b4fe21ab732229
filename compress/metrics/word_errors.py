"""How much of what is said a model writes down wrongly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.inputs.batch import Batch
from compress.metrics.change import Sampled, ratio_change
from compress.metrics.kind import Figure, Metric, Quality, Scale

Read = Callable[[Any, Batch], Sequence[tuple[Sequence[Any], Sequence[Any]]]]
"""An output and its batch → for each sample what was said and what is written, as words or tokens."""


@dataclass(frozen=True)
class Errors:
    """Of every sample, in order: words that are wrong, missing or too many, and words that were said."""

    wrong: list[int]
    said: list[int]

    @property
    def rate(self) -> Sampled:
        """Wrong words over all said ones, and the same without each of the samples."""
        wrong, said = np.array(self.wrong), np.array(self.said)
        rest = (wrong.sum() - wrong) / np.maximum(said.sum() - said, 1)
        return Sampled(float(wrong.sum() / max(said.sum(), 1)), rest)

    def record(self) -> dict[str, Any]:
        """As data."""
        return {"value": self.rate.value, "wrong": sum(self.wrong), "said": sum(self.said), "samples": len(self.said)}


class ErrorRate(Metric[Errors]):
    """The least number of changes that turn what is written into what was said, over what was said (Levenshtein).

    `noun`: `word` or `token`, which `read` gives. `run`: what is done with the forward for each batch, where that is
    not to call it once.
    """

    def __init__(self, noun: str, read: Read, run: Callable[[Callable[..., Any], Batch], Any] | None = None) -> None:
        self.name, self._title, self._noun = f"{noun}_error_rate", f"{noun.title()} error rate", noun
        self._read, self._run = read, run

    def run(self, forward: Callable[..., Any], batch: Batch) -> Any:
        """What the model makes of a batch."""
        return forward(**batch) if self._run is None else self._run(forward, batch)

    def read(self, output: Any, batch: Batch) -> Errors:
        """Errors of each sample."""
        pairs = self._read(output, batch)
        return Errors([changes(said, written) for said, written in pairs], [len(said) for said, _ in pairs])

    def merged(self, readings: Sequence[Errors]) -> Errors:
        """Errors of all samples."""
        return Errors(
            [number for one in readings for number in one.wrong], [number for one in readings for number in one.said]
        )

    def quality(self, model: Errors, dense: Errors | None = None) -> Quality:
        """The rate, and its change where the dense model makes errors too."""
        own, other = model.rate, dense.rate if dense is not None else None
        over = f"{sum(model.said)} {self._noun}s in {len(model.said)} samples"
        value = other.value if other is not None else None
        figure = Figure(self.name, self._title, over, own.value, value, False, Scale.SHARE)
        change = ratio_change(other, own) if other is not None else None
        return Quality(
            (figure,),
            {self.name: model.record()},
            {self.name: dense.record()} if dense is not None else {},
            {self.name: change} if change is not None else {},
            own,
        )


def changes(said: Sequence[Any], written: Sequence[Any]) -> int:
    """The least number of insertions, deletions and replacements between two sequences."""
    row = list(range(len(written) + 1))
    for i, word in enumerate(said, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(written, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]
