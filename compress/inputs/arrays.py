"""Whatever a forward takes, by example: tensors in a file beside config.json."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compress.data.arrays import EXAMPLES, read_arrays
from compress.data.cut import cut
from compress.errors import InputError
from compress.graph.example import Example
from compress.inputs.batch import Batch, first, rows
from compress.inputs.kind import Inputs
from compress.recipe.part import Part
from compress.registry import inputs, sources

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate

ROWS, ODD_ROWS = 2, 3


@inputs.add("arrays")
class Arrays(Inputs):
    """The tensors of `example_inputs.npz` beside config.json, by the names of the forward's
    arguments; the first dimension of each is the sample. Such a file goes before every other kind of inputs."""

    noun = "values"
    data = Part("arrays")

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models with such a file."""
        return _file(config) is not None

    def example(self) -> Example:
        """The first two samples, with their values."""
        batch = self.check(ROWS)
        return Example(batch, {"batch": (next(iter(batch)), 0)})

    def check(self, rows: int = 2, seed: int = 0) -> Batch:
        """Samples of the file, from the `seed`-th on, again from the first where there are too few."""
        return _repeated(self._samples, rows, seed)

    def odd(self, device: torch.device | str = "meta") -> Batch:
        """Three samples of the file."""
        return self.check(ODD_ROWS)

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """The file's samples, or those of another one with the same tensors, as `calibrate.data` says; `random` is
        noise of the same mean and spread."""
        if calibrate.template is not None:
            raise InputError(f"calibrate.template: {calibrate.template}: the model reads arrays; leave it out")
        data, found = calibrate.data or self.data, self._samples
        part = data if isinstance(data, Part) else Part("arrays", {"path": data})
        if part.name == "random":
            return cut(_noise(found, calibrate.samples, seed), calibrate.batch)
        if part.name != self.data.name:
            raise InputError(f"calibrate.data: {part.name}: the model reads arrays; take arrays, random or a file")
        for found in part.bind(sources)():
            if found.keys() != self._samples.keys():
                raise InputError(f"calibrate.data: {part}: has {', '.join(found)}, not {', '.join(self._samples)}")
        return cut(first(found, calibrate.samples), calibrate.batch)

    def held_out(self, calibrated: Iterable[Part | str | None]) -> Part:
        """The samples of the file: there are no others."""
        return self.data

    def length(self, batch: Batch) -> int:
        """Numbers of a sample's first tensor along its second dimension, one where there is none."""
        tensor = next(iter(batch.values()))
        return tensor.shape[1] if tensor.dim() > 1 else 1

    @property
    def _samples(self) -> Batch:
        file = _file(self.config)
        assert file is not None  # or it would not fit
        return _read(file, file.stat().st_mtime_ns)


@lru_cache(4)
def _read(file: Path, changed: int) -> Batch:
    return read_arrays(file)


def _file(config: Any) -> Path | None:
    """The file beside the config that a model was built from."""
    folder = getattr(config, "name_or_path", "")
    file = Path(folder) / EXAMPLES
    return file if folder and file.is_file() else None


def _repeated(found: Batch, count: int, start: int) -> Batch:
    places = (torch.arange(count) + start) % rows(found)
    return {name: value[places] for name, value in found.items()}


def _noise(found: Batch, count: int, seed: int) -> Batch:
    """Floating tensors anew, the others drawn from what is there."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(rows(found), (count,), generator=generator)

    def one(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value[places]
        spread = value.std() if value.numel() > 1 else torch.ones(())
        return value.mean() + spread * torch.randn(count, *value.shape[1:], generator=generator)

    return {name: one(value) for name, value in found.items()}
