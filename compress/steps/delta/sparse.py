"""A sparse tensor as a few dense ones: the values that stay, and where, in the smaller of two forms.

`gaps` (uint8): for every value, in row-major order, how many zeros lie before it since the last one; a byte of 255
stands for 255 zeros and no value. One byte a value, and another per 255 zeros: the smaller form below one value in
eight. `bits` (uint8): one bit an entry, the lowest of a byte first.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

LONG = 255
ABOUT = " ".join(line.strip() for line in (__doc__ or "").split("\n\n", 1)[1].splitlines())
"""The forms in words, for the metadata of a file."""


def pack(values: Tensor, kept: Tensor) -> dict[str, Tensor]:
    """`values` and bool `kept`, of one shape → `values` `[count]` with `gaps` or `bits`, uint8."""
    flat = kept.reshape(-1).numpy()
    positions = np.flatnonzero(flat)
    chosen = values.reshape(-1)[torch.from_numpy(positions)]
    zeros = np.diff(positions, prepend=-1) - 1
    ends = np.cumsum(zeros // LONG + 1)
    if len(ends) and ends[-1] > (len(flat) + 7) // 8:
        return {"values": chosen, "bits": torch.from_numpy(np.packbits(flat, bitorder="little"))}
    gaps = np.full(ends[-1] if len(ends) else 0, LONG, np.uint8)
    gaps[ends - 1] = zeros % LONG
    return {"values": chosen, "gaps": torch.from_numpy(gaps)}


def positions_of(parts: Mapping[str, Tensor], entries: int) -> Tensor:
    """Flat positions of the values, int64 `[count]`, ascending, in a tensor of `entries`.

    Raises ValueError when `gaps` or `bits` point outside of it, or at another number of places than there are values.
    """
    if "bits" in parts:
        found = np.flatnonzero(np.unpackbits(parts["bits"].numpy(), bitorder="little"))
    else:
        gaps = parts["gaps"].numpy().astype(np.int64)
        found = np.cumsum(np.where(gaps == LONG, LONG, gaps + 1))[gaps != LONG] - 1
    if len(found) != len(parts["values"]) or (len(found) and found[-1] >= entries):
        raise ValueError(f"{len(found)} places for {len(parts['values'])} values of a tensor of {entries}")
    return torch.from_numpy(found)
