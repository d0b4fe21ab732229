"""The header of a safetensors file, read and checked without reading the weights.

A file is an 8-byte little-endian length, that many bytes of JSON (name → dtype, shape, data_offsets), then the data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from compress.console import human_bytes
from compress.errors import InputError
from compress.files.ordinary import check_ordinary

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

AGAIN = "fetch or save the checkpoint again"
LONGEST = 100_000_000
"""No header is longer (the limit of the safetensors library, in bytes)."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A stored tensor: its name in `file`, and where its `bytes` begin there (`start`; 0 in a pickle)."""

    name: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int = 0

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def read_header(file: Path) -> tuple[dict[str, TensorSpec], bytes]:
    """The tensors of `file` by name, and the header's raw bytes.

    Raises InputError, naming the file and the cure, when the file is missing, truncated or not what its header says.
    """
    check_ordinary(file)
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            first = opened.read(8)
            length = int.from_bytes(first, "little")
            if first.startswith(b"version ") and size < 1000:
                raise InputError(f"{file}: this is a pointer of Git LFS, not the weights; run `git lfs pull`")
            if size < 8 or (length > LONGEST and length > size):
                raise InputError(f"{file}: not a safetensors file ({human_bytes(size)}); {AGAIN}")
            if length > size - 8:
                raise InputError(f"{file}: truncated inside its header, {human_bytes(size)} are there; {AGAIN}")
            raw = opened.read(length)
    except FileNotFoundError:
        raise InputError(f"{file}: missing; {AGAIN}") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    try:
        header: dict[str, Any] = json.loads(raw)
        header.pop("__metadata__", None)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{file}: its header is corrupt; {AGAIN}") from None
    entries = sorted((_entry(file, name, item) for name, item in header.items()), key=lambda entry: entry[3:])
    specs: dict[str, TensorSpec] = {}
    end = 0
    for name, kind, shape, start, stop in entries:
        if kind not in DTYPES:
            raise InputError(f"{file}: tensor {name} has the dtype {kind}, which is not supported")
        specs[name] = TensorSpec(name, file, DTYPES[kind], shape, 8 + length + start)
        if start != end or stop - start != specs[name].bytes:
            raise InputError(f"{file}: its header is corrupt at tensor {name}; {AGAIN}")
        end = stop
    whole = 8 + length + end
    if size < whole:
        raise InputError(f"{file}: truncated, {human_bytes(size)} of {human_bytes(whole)} are there; {AGAIN}")
    if size > whole:
        raise InputError(f"{file}: {size - whole} bytes too long for its header, so corrupt; {AGAIN}")
    return {name: specs[name] for name in header}, raw


def _entry(file: Path, name: str, item: Any) -> tuple[str, str, tuple[int, ...], int, int]:
    """Name, dtype, shape, first byte and end of one tensor. Raises InputError where one of them is no such thing."""
    item = item if isinstance(item, dict) else {}
    kind, shape, offsets = (item.get(key) for key in ("dtype", "shape", "data_offsets"))
    for key, value, right in (
        ("dtype", kind, isinstance(kind, str)),
        ("shape", shape, _counts(shape)),
        ("data_offsets", offsets, _counts(offsets) and len(offsets) == 2),
    ):
        if not right:
            raise InputError(f"{file}: its header is corrupt at tensor {name}: {key} is {value!r}; {AGAIN}")
    return name, kind, tuple(shape), *offsets  # pyright: ignore


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
