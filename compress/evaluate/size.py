"""What a checkpoint weighs on disk, and what this process has needed of memory."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from math import prod
from pathlib import Path

from compress.checkpoint.open import open_checkpoint


@dataclass(frozen=True)
class Size:
    """`parameters`: numbers stored, ties counted once. `bytes`: of the weight files."""

    parameters: int
    bytes: int


def size(folder: Path | str) -> Size:
    """Size of a checkpoint folder, from the headers of its weight files; no weight is read."""
    checkpoint = open_checkpoint(folder)
    return Size(sum(prod(spec.shape) for spec in checkpoint.tensors.values()), checkpoint.bytes)


def peak_memory() -> int:
    """The most bytes of memory that this process has held so far (resident set)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
