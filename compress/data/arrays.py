"""Tensors by name in a file of numpy's or of safetensors'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compress.errors import InputError
from compress.files.ordinary import check_ordinary

EXAMPLES = "example_inputs.npz"
"""Name of the file beside config.json."""


def read_arrays(file: Path) -> dict[str, Tensor]:
    """The tensors of a .npz or .safetensors file, none of them pickled; all have as many samples.

    Raises InputError for another file, one that cannot be read, and tensors of unequal length.
    """
    check_ordinary(file)
    try:
        found = _npz(file) if file.suffix == ".npz" else _safetensors(file)
    except Exception as error:  # both libraries raise errors of many kinds
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{file}: cannot be read as arrays by name ({reason}); write it by numpy.savez") from None
    lengths = {name: value.shape[0] if value.dim() else 0 for name, value in found.items()}
    if not found or len(set(lengths.values())) > 1 or 0 in lengths.values():
        said = ", ".join(f"{name} {count}" for name, count in lengths.items()) or "no array"
        raise InputError(f"{file}: has {said} samples; every array has as many along its first dimension")
    return found


def _npz(file: Path) -> dict[str, Tensor]:
    with np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.array(arrays[name], order="C")) for name in arrays.files}


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(file)
