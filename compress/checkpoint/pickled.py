"""Weights in pickle files, opened only when the user allows it, and then by the loader that runs no code."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from compress.checkpoint.header import AGAIN, TensorSpec
from compress.checkpoint.seen import fill
from compress.errors import InputError


class Pickles:
    """The tensors of some `.bin` files, left on disk where the file's format allows, else in memory."""

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
        tensor = self._tensors[spec.file][spec.name]
        if isinstance(tensor, FakeTensor):
            tensor = _from_disk(tensor, spec.file)
        return tensor.clone(memory_format=torch.contiguous_format)


def _from_disk(known: FakeTensor, file: Path) -> Tensor:
    """The tensor of which the shape, the strides and the place in the file are `known`."""
    item = known.dtype.itemsize
    last = sum((size - 1) * stride for size, stride in zip(known.shape, known.stride(), strict=True))
    flat = torch.empty((last + 1) * item if known.numel() else 0, dtype=torch.uint8)
    # Documented in PyTorch's notes on serialization; torch.load sets it in fake mode.
    start: int = known.untyped_storage()._checkpoint_offset  # pyright: ignore[reportAssignmentType]
    fill(flat, file, start + int(known.storage_offset()) * item)
    return flat.view(known.dtype).as_strided(known.shape, known.stride())


def _load(file: Path) -> dict[str, Tensor]:
    try:
        if _left_on_disk(file):
            with FakeTensorMode():
                loaded = torch.load(file, map_location="cpu", weights_only=True)
        else:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"{file}: holds more than tensors, and opening that could run code; {AGAIN}") from None
    except (RuntimeError, ValueError, EOFError, OSError, BadZipFile, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{file}: truncated or corrupt ({reason}); {AGAIN}") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{file}: holds a {type(loaded).__name__}, not a mapping of names to tensors; {AGAIN}")
    if strange := [name for name in loaded if not isinstance(name, str)]:
        raise InputError(f"{file}: holds a tensor under {strange[0]!r}, which is no name; {AGAIN}")
    return {name: tensor.detach() for name, tensor in loaded.items() if isinstance(tensor, Tensor)}


def _left_on_disk(file: Path) -> bool:
    """Whether the bytes in the file are those that a tensor has in memory: a zip, of this machine's byte order."""
    if not is_zipfile(file):
        return False
    with ZipFile(file) as opened:
        orders = [opened.read(name) for name in opened.namelist() if name.endswith("/byteorder")]
    return orders in ([], [sys.byteorder.encode()])
