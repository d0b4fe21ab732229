"""The weights are the input's; what changed stands in the config."""

from __future__ import annotations

import torch

from compress.console import track
from compress.errors import VerifyError
from compress.model.model import Model
from compress.surgery.edit import Written


class SameWeights:
    """Every tensor is the input's, bit for bit, under the same name."""

    def prove(self, source: Model, written: Written) -> str:
        """Raises VerifyError where a tensor is missing, is another, or there is one more."""
        left = set(source.weights.unexpected)
        wanted, found = set(source.checkpoint.tensors) - left, set(written.checkpoint.tensors)
        if odd := sorted(wanted ^ found):
            raise VerifyError(f"{odd[0]} is {'missing' if odd[0] in wanted else 'no tensor of the input'}")
        for name in track(sorted(wanted), "verifying"):
            if not torch.equal(written.checkpoint.read(name), source.checkpoint.read(name)):
                raise VerifyError(f"{name} is not the input's")
        return f"all {len(wanted)} tensors are the input's, bit for bit"
