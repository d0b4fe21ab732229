"""Weights are zero as decided; the others are the input's, or an update moved them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from compress.console import track
from compress.errors import VerifyError
from compress.model.model import Model
from compress.surgery.edit import Written

ROUNDING = 0.01
"""How much the share of zeros in a matrix may be off, beside what rounding to whole weights gives."""


@dataclass(frozen=True)
class ZerosAsDecided:
    """Of each matrix in `shares` (state name → share of its weights) that many weights are zero, give or take its
    `slack` by whole weights, rows or blocks; with `updated` the weights beside them may have moved."""

    shares: Mapping[str, float]
    slack: Mapping[str, float]
    updated: bool = False

    def prove(self, source: Model, written: Written) -> str:
        """Raises VerifyError where there are more or fewer zeros, or something else is not the input's."""
        result = Model.of(written.checkpoint)
        zeros = total = 0
        for name in track(source.weights.names(""), "verifying"):
            before, after = source.weights.read(name), result.weights.read(name)
            if name not in self.shares:
                if not torch.equal(before, after):
                    raise VerifyError(f"{name} is not the input's")
                continue
            zeros += self._check(name, before, after)
            total += after.numel()
        said = f"{zeros / total:.1%} of {len(self.shares)} projections' weights are zero, all else is the input's"
        updated = ", but for the weights beside the zeros: an update moved them, so their values were not checked"
        return said + updated if self.updated else said

    def _check(self, name: str, before: Tensor, after: Tensor) -> int:
        """How many weights of a matrix are zero; zeros that the input had may come on top of its share."""
        share, slack = self.shares[name], ROUNDING + self.slack[name]
        gone = after == 0
        count, had = int(gone.sum()), int((before == 0).sum())
        if not self.updated and not torch.equal(before.masked_fill_(gone, 0), after):
            raise VerifyError(f"{name}: weights that stay are not the input's")
        if not share - slack <= count / gone.numel() <= share + slack + had / gone.numel():
            raise VerifyError(f"{name}: {count / gone.numel():.1%} of its weights are zero, not {share:.1%}")
        return count


def slack_of(shape: tuple[int, int], tile: tuple[int, int] | None) -> float:
    """What rounding to whole weights of a row, or whole blocks, is of a matrix (out, in)."""
    return 0.5 * (prod(tile) / prod(shape) if tile else 1 / shape[1])
