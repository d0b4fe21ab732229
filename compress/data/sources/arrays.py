"""Tensors in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from compress.data.arrays import read_arrays
from compress.registry import sources


@sources.add("arrays", gives="arrays")
def arrays(*, path: str | None = None) -> Iterator[dict[str, Tensor]]:
    """A .npz or .safetensors file by the names of the forward's arguments, a sample along each one's first dimension.

    Without a path those beside config.json are meant (`example_inputs.npz`). Raises InputError for a file that cannot
    be read.
    """
    if path is not None:
        yield read_arrays(Path(path).expanduser())
