"""Tensors that no file holds as the model has them: made of stored ones whenever they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from compress.checkpoint.header import TensorSpec

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint

Read = Callable[[str], Tensor]


@dataclass(frozen=True)
class Converted:
    """A tensor made of the stored `sources`; `spec` is what it looks like, `make` is given how they are read."""

    spec: TensorSpec
    sources: tuple[str, ...]
    make: Callable[[Read], Tensor]


def with_converted(checkpoint: Checkpoint, converted: Mapping[str, Converted]) -> Checkpoint:
    """The same checkpoint with these tensors in place of those that they are made of."""
    gone = {source for made in converted.values() for source in made.sources}
    left = {name: spec for name, spec in checkpoint.tensors.items() if name not in gone}
    return replace(
        checkpoint,
        tensors={**left, **{name: made.spec for name, made in converted.items()}},
        _converted={**checkpoint._converted, **converted},
        _sources={**checkpoint._sources, **{name: checkpoint.tensors[name] for name in gone}},
    )


def stored_tensors(checkpoint: Checkpoint) -> dict[str, TensorSpec]:
    """What lies in the files, by its name there."""
    left = {name: spec for name, spec in checkpoint.tensors.items() if name not in checkpoint._converted}
    return {**left, **checkpoint._sources}
