"""The contract between the package and what a model reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.graph.example import Example
from compress.inputs.batch import Batch

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.part import Part
    from compress.recipe.schema import Calibrate


@dataclass(frozen=True)
class Written:
    """The `tokens` `[rows, length]` of a batch that a model writes one after the other.

    `prompt(count)` is what `generate` takes for it to go on behind the first `count` of them; `start` is the first
    token where `generate` would else put one in front (encoder-decoders), None where it does not.
    """

    tokens: Tensor
    prompt: Callable[[int], Batch]
    start: int | None = None


class Inputs(ABC):
    """What `model`, built from `config`, reads. The model may be on the meta device: no weight is looked at.

    Registered kinds say of a model whether they fit it; an instance speaks of that one model.
    """

    noun: ClassVar[str]
    """What there are many of in a sample, as it is shown to users: `tokens`."""

    data: ClassVar[Part]
    """The source to calibrate on where a recipe names none."""

    def __init__(self, model: nn.Module, config: Any) -> None:
        self.model, self.config = model, config

    @property
    def tower(self) -> Any:
        """The part of the config that tells of the blocks which these inputs go through."""
        return self.config

    @classmethod
    @abstractmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Whether the model reads inputs of this kind."""

    @abstractmethod
    def example(self) -> Example:
        """Inputs on the meta device of the smallest forward that runs every operator of the model."""

    @abstractmethod
    def check(self, rows: int = 2, seed: int = 0) -> Batch:
        """Small real inputs on the CPU, by which what was written is compared with what should have been.

        Raises ModelError for a model that cannot be given any.
        """

    @abstractmethod
    def odd(self, device: torch.device | str = "meta") -> Batch:
        """Inputs of sizes that no width of a model is likely to have, so that its output's sizes can be told apart."""

    @abstractmethod
    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """`calibrate.samples` samples in batches, with what a loss is told of them, and a key by which they are known.

        Raises InputError where the data that `calibrate` names cannot be had, or does not fit the model.
        """

    @abstractmethod
    def held_out(self, calibrated: Iterable[Part | str | None]) -> Part:
        """A source of data unlike those `calibrated` on (None: the default), to measure quality by."""

    @abstractmethod
    def length(self, batch: Batch) -> int:
        """How many positions a sample has, as far as the inputs tell: of text its tokens."""

    @property
    def reserved(self) -> frozenset[int]:
        """Tokens that stand for something else than text, such as images: no random text has any."""
        return frozenset()

    @property
    def free_length(self) -> bool:
        """Whether samples may be of any length: then costs are those of some length, else of a sample."""
        return "sequence" in self.example().axes

    def longest(self, checkpoint: Checkpoint) -> int | None:
        """How long a sample may be, None where a sample's length is not free or has no end."""
        return None

    def meaningful(self, checkpoint: Checkpoint) -> bool:
        """Whether real data can be given, so that quality can be measured; else `random` data has a latency only."""
        return True

    def labelled(self, file: Path | None, checkpoint: Checkpoint, *, samples: int, length: int) -> list[Batch]:
        """Samples with the class of each as labels `[rows]`, out of a file of the user's, `samples` at most.

        Raises InputError where the file cannot be used or was not named, or this kind of inputs reads none.
        """
        raise InputError(
            f"--data: samples with labels are read for models of text only, and this one reads {self.noun}"
        )

    def reread(self, batches: list[Batch], own: Checkpoint, other: Checkpoint) -> list[Batch]:
        """The samples of `batches`, made for the checkpoint `own`, as the model of `other` reads the same data; the
        batches themselves where it reads them alike. Raises InputError where it cannot."""
        return batches

    def warning(self, checkpoint: Checkpoint) -> str | None:
        """What a user must know of the checkpoint's inputs, None where they are in order."""
        return None

    def written(self, batch: Batch) -> Written | None:
        """What of the batch the model could have written itself, token by token with a cache; None for most models."""
        return None
