"""Batch norms whose statistics were taken anew: all else is the input's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.console import track
from compress.errors import VerifyError
from compress.model.model import Model
from compress.surgery.edit import Written


@dataclass(frozen=True)
class SameButNorms:
    """Every tensor is the input's, bit for bit, but those of `taken`, by name on disk, which are as given."""

    taken: Mapping[str, Tensor]

    def prove(self, source: Model, written: Written) -> str:
        """Raises VerifyError where a tensor is another, or a variance is negative or not finite."""
        for name, spec in track(list(written.checkpoint.tensors.items()), "verifying"):
            found = written.checkpoint.read(name)
            wanted = self.taken[name].to(spec.dtype) if name in self.taken else source.checkpoint.read(name)
            if not torch.equal(found, wanted):
                raise VerifyError(f"{name} is not the input's")
            if name in self.taken and not (found.isfinite().all() and (found.min() >= 0 or "var" not in name)):
                raise VerifyError(f"{name} is no statistic: it is not finite, or a variance below zero")
        return f"the statistics of {len(self.taken) // 2} batch norms were taken anew, all else is the input's"
