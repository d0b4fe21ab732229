"""What a format offers that a finished model can be exported to: one file in this folder, one class in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from compress.checkpoint.open import Checkpoint
from compress.evaluate.budget import Budget
from compress.metrics.change import Change
from compress.model.model import Model


@dataclass(frozen=True)
class Written:
    """What a format wrote: `data` for programs (JSON values), `lines` of (what, value) and a sentence for people.

    `data` goes into report.json and is what `compress export --json` prints. The sentence, `about`, is for the model
    card and names the folder that the result lies in.
    """

    data: dict[str, Any]
    lines: list[tuple[str, str]]
    about: str


@dataclass(frozen=True)
class Timing:
    """Seconds that one operation takes with the dense and with the pruned model, both exported."""

    label: str
    before: float
    after: float
    change: Change


@dataclass(frozen=True)
class Comparison:
    """The exported model's speed beside the exported dense one's: `data` for report.json, and the rows of the table.

    `notes` say what was not measured, and why.
    """

    data: dict[str, Any] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Format(ABC):
    """Registered as `@formats.add("name")`; the name is a key under `export` in a recipe, and the folder in OUT.

    `settings` is the model of what a recipe may say under that name; its fields carry their descriptions.
    """

    settings: ClassVar[type[BaseModel]]

    @abstractmethod
    def write(self, checkpoint: Checkpoint, folder: Path, settings: Any) -> Written:
        """Write the model into `folder`, which exists and is empty. `settings` is an instance of the model above.

        Raises InputError for settings that do not fit the model, ModelError for a model that the format has no words
        for, VerifyError where what was written does not compute what the model does.
        """

    def compare(self, dense: Model, folder: Path, settings: Any, budget: Budget, took: float) -> Comparison | None:
        """The speed of what `write` put into `folder`, in `took` seconds, beside that of the dense model exported too.

        None where the format measures nothing.
        """
        return None
