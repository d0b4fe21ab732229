"""The contract between a measurement and what it measures, and what comes of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from compress.errors import InputError
from compress.inputs.batch import Batch
from compress.metrics.change import Change, Sampled

Reading = TypeVar("Reading")


class Scale(StrEnum):
    """How a figure is shown, and its change."""

    NUMBER = "number"
    """Every model has one of its own; a change is a multiple."""
    SHARE = "share"
    """Likewise, between 0 and 1, and shown in per cent."""
    SIMILARITY = "similarity"
    """To the dense model, which has 1 to itself; a change is a difference."""


@dataclass(frozen=True)
class Figure:
    """One number that says how good a model is, with all that is needed to show it.

    `name`: its own, and that of its change. `title` and `over`: in words, `Perplexity` and `64 × 256 tokens`. `value`:
    the model's; `dense`: the dense model's, None where the model was measured alone. `ranks`: whether models are ranked
    by it, which is so of one figure of a metric at most.
    """

    name: str
    title: str
    over: str
    value: float
    dense: float | None
    higher_is_better: bool
    scale: Scale = Scale.NUMBER
    ranks: bool = True


@dataclass(frozen=True)
class Quality:
    """What a metric makes of a model, alone or beside the dense one on the same samples.

    `record` and `dense_record`: all that was measured of either, as data, by the metric's name; empty where a model has
    no figures of its own. `changes`, by figure: how sure the differences are. `sampled`: the figure that models are
    ranked by, to be paired with another model's on the same samples.
    """

    figures: Sequence[Figure] = ()
    record: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    dense_record: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    changes: Mapping[str, Change] = field(default_factory=dict)
    sampled: Sampled | None = None

    @property
    def main(self) -> Figure:
        """The figure that models are ranked by. Raises InputError where there is none."""
        found = next((figure for figure in self.figures if figure.ranks), None)
        if found is None:
            raise InputError("the model has no quality of its own: measure it beside the dense model")
        return found


class Metric(ABC, Generic[Reading]):
    """A measurement of quality. What one batch gives is a reading: a small value that keeps no logits.

    `name`: the key of its record in report.json. `asks`: what a forward is asked for beside its batch, where the model
    knows it. `relative`: the model alone has no quality, only one beside the dense model.
    """

    name: str
    asks: ClassVar[Mapping[str, Any]] = {}
    relative: bool = False

    def run(self, forward: Callable[..., Any], batch: Batch) -> Any:
        """What the model makes of a batch without its labels, of which `read` is given it: one forward, by default."""
        return forward(**batch)

    @abstractmethod
    def read(self, output: Any, batch: Batch) -> Reading:
        """What the `output` of a forward says about the samples of `batch`, whose labels are among it.

        Raises InputError where the output is of another kind than the metric reads.
        """

    @abstractmethod
    def merged(self, readings: Sequence[Reading]) -> Reading:
        """The readings of several batches, one at least, as one of all their samples in order."""

    @abstractmethod
    def quality(self, model: Reading, dense: Reading | None = None) -> Quality:
        """What `model` is worth, beside `dense` where it is given: a reading of the same samples.

        Raises InputError when there is nothing to measure in them.
        """
