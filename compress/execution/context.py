"""What a step may ask for while it decides: the model, the dense original, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from compress.calibrate.collect import collect
from compress.checkpoint.open import WHOLE
from compress.errors import ConfigAloneError
from compress.execution.baseline import Original
from compress.model.model import Model
from compress.recipe.schema import Recipe

if TYPE_CHECKING:
    from compress.inputs.batch import Batch


@dataclass(frozen=True)
class Needs:
    """Statistics that calibration must gather of the model as the step finds it.

    `statistics`: name → the tensors or blocks it is gathered at. `families`: the names of those about to lose groups,
    which are the units that some statistics are taken by.
    """

    statistics: Mapping[str, set[str]] = field(default_factory=dict)
    families: tuple[str, ...] = ()

    def __or__(self, other: Needs) -> Needs:
        """What both ask for."""
        found = {name: set(keys) for name, keys in self.statistics.items()}
        for name, keys in other.statistics.items():
            found.setdefault(name, set()).update(keys)
        return Needs(found, tuple(dict.fromkeys((*self.families, *other.families))))


@dataclass(frozen=True)
class Context:
    """`source` is the model as the steps before left it, `dense` the one that the run began with, whose size
    `original` knows; they are one and the same in the first step. `device` is where to compute."""

    source: Model
    dense: Model
    original: Original
    recipe: Recipe
    device: str

    @cached_property
    def _calibration(self) -> tuple[list[Batch], str]:
        source = self.source
        if source.checkpoint.config_only:
            raise ConfigAloneError(f"{source.checkpoint.folder}: nothing can be calibrated on a config alone; {WHOLE}")
        return source.inputs.batches(self.recipe.calibrate, source.checkpoint, self.recipe.seed)

    @property
    def batches(self) -> list[Batch]:
        """The calibration data: name → `[batch, length]`. Raises ConfigAloneError where no weights are known."""
        return self._calibration[0]

    @property
    def data_key(self) -> str:
        """Stands for the calibration data. Raises ConfigAloneError where no weights are known."""
        return self._calibration[1]

    def fresh(self, samples: int) -> tuple[list[Batch], str]:
        """So many samples of the calibration's data, drawn anew, and what stands for them."""
        _ = self._calibration  # refuses a config alone
        calibrate = self.recipe.calibrate.model_copy(update={"samples": samples})
        return self.source.inputs.batches(calibrate, self.source.checkpoint, self.recipe.seed + 1)

    def collect(self, needs: Needs) -> Mapping[str, Mapping[str, Tensor]]:
        """The statistics of `needs`, of the model as it is; those of a checkpoint are kept on disk for other recipes.

        Every process of a distributed run must call it. Raises what `calibrate.collect` raises.
        """
        wanted = {name: keys for name, keys in needs.statistics.items() if keys}
        if not wanted:
            return {}
        rows, key = self._calibration
        source, families = self.source, needs.families or None
        in_memory = source.checkpoint.architecture is not None  # its digest says nothing of the module's code
        return collect(
            source.checkpoint,
            source.graph,
            wanted,
            rows,
            data_key=None if in_memory else key,
            families=families,
            device=self.device,
            gradients=self.recipe.calibrate.gradients,
        )
