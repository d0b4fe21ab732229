"""What a step makes of a model, as data and a producer: nothing is written yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from compress.checkpoint.open import Checkpoint
from compress.checkpoint.write import Spec
from compress.model.model import Model

Put = Callable[[str, Tensor], None]
"""`(name on disk, tensor)`: takes one tensor of the result, in the dtype and shape that the edit declares."""


@dataclass(frozen=True)
class Written:
    """An edited model as it lies in `folder`, opened again."""

    folder: Path
    checkpoint: Checkpoint


class Place(Protocol):
    """Where an edited model goes: a folder (`surgery.rewrite`), or a module in memory (`surgery.rebuild`)."""

    def write(self, source: Model, edit: Edit) -> None:
        """Take every tensor that the edit produces, and what else it says."""
        ...

    def opened(self, source: Model) -> Written:
        """What was written, opened anew. Raises a CompressError where it cannot be."""
        ...


class Claim(Protocol):
    """What is true of an edited model beside its input's, and how to tell."""

    def prove(self, source: Model, written: Written) -> str:
        """What was found, for the report. Raises VerifyError where the claim does not hold."""
        ...


@dataclass(frozen=True)
class Edit:
    """A changed model.

    `specs`: name on disk, dtype and shape of every tensor of the result. `produce(put)` hands each of them to `put`
    once, in any order, a few in memory at a time; where it calibrates meanwhile it is `collective`: every process of a
    distributed run must call it. `config` is the whole config.json, `changed` its edited values, path → (old, new).
    `claim` is proved before the result appears. `opens_with`: who opens it and how (see `OutputFormat.described`).
    `beside`: path below the folder → the new text of a file of the input, None where it is no longer true; the others
    are copied. `kept`: family → bool `[size]`, the groups that stay, for families that lose some; `parameters` come on
    top of what these leave, and `zeros` weights are zero. `notes` are for the user.
    """

    specs: Sequence[Spec]
    produce: Callable[[Put], None]
    config: Mapping[str, Any]
    claim: Claim
    opens_with: Mapping[str, Any]
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    beside: Mapping[str, str | None] = field(default_factory=dict)
    kept: Mapping[str, np.ndarray] = field(default_factory=dict)
    parameters: int = 0
    zeros: int = 0
    notes: Sequence[str] = ()
    collective: bool = False


def unchanged_specs(source: Model) -> list[Spec]:
    """Name on disk, dtype and shape of every stored tensor that the model has a place for."""
    strays = set(source.weights.unexpected)
    return [(name, spec.dtype, spec.shape) for name, spec in source.checkpoint.tensors.items() if name not in strays]
