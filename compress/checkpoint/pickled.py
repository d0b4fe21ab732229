"""Weights in pickle files, opened only when the user allows it, and then by the loader that runs no code."""

from __future__ import annotations

import pickle
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import torch
from torch import Tensor

from compress.checkpoint.header import AGAIN, TensorSpec
from compress.errors import InputError


class Pickles:
    """The tensors of some `.bin` files, memory-mapped where the file's format allows."""

    def __init__(self, files: list[Path]) -> None:
        self._tensors = {file: _load(file) for file in files}

    def specs(self) -> dict[str, TensorSpec]:
        """Every tensor by name."""
        return {
            name: TensorSpec(name, file, tensor.dtype, tuple(tensor.shape))
            for file, tensors in self._tensors.items()
            for name, tensor in tensors.items()
        }

    def read(self, spec: TensorSpec) -> Tensor:
        """A copy of the tensor."""
        return self._tensors[spec.file][spec.name].clone(memory_format=torch.contiguous_format)


def _load(file: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    except pickle.UnpicklingError:
        raise InputError(f"{file}: holds more than tensors, and opening that could run code; {AGAIN}") from None
    except (RuntimeError, ValueError, EOFError, OSError, BadZipFile, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{file}: truncated or corrupt ({reason}); {AGAIN}") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{file}: holds a {type(loaded).__name__}, not a mapping of names to tensors; {AGAIN}")
    return {name: tensor.detach() for name, tensor in loaded.items() if isinstance(tensor, Tensor)}
