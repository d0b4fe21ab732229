"""Reads the weights out of a model of CTranslate2, `model.bin`, as its `model_spec.py` writes them.

Little-endian throughout: the version of the format, the name and the revision of the kind of model; then the number of
tensors, and of each its name, its rank, its sizes, its type, its bytes' number and its bytes; last are aliases, names
for a tensor that is already there. A string is its length with the zero that ends it, in two bytes, and its bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from struct import calcsize, unpack_from

import numpy as np
import torch
from torch import Tensor

VERSION = 6
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
"""By their numbers in the file."""


class _Reader:
    """Numbers and strings of a file, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def numbers(self, form: str) -> tuple[int, ...]:
        found = unpack_from(f"<{form}", self.data, self.at)
        self.at += calcsize(f"<{form}")
        return found

    def number(self, form: str) -> int:
        return self.numbers(form)[0]

    def bytes(self, count: int) -> bytes:
        found = self.data[self.at : self.at + count]
        self.at += count
        return found

    def string(self) -> str:
        return self.bytes(self.number("H")).removesuffix(b"\0").decode()


def read(file: Path) -> dict[str, Tensor]:
    """All tensors by name, of the types that they are stored in; SystemExit for another version of the format."""
    reader = _Reader(file.read_bytes())
    if (version := reader.number("I")) != VERSION:
        sys.exit(f"{file}: version {version} of CTranslate2's format, where {VERSION} is known")
    reader.string()  # the kind of model
    reader.number("I")  # its revision
    tensors = {}
    for _ in range(reader.number("I")):
        name = reader.string()
        shape = reader.numbers(f"{reader.number('B')}I")
        kind = TYPES[reader.number("B")]
        stored = np.frombuffer(reader.bytes(reader.number("I")), kind)
        tensors[name] = torch.from_numpy(stored.reshape(shape).copy())
    for _ in range(reader.number("I")):
        name = reader.string()
        tensors[name] = tensors[reader.string()]
    return tensors
