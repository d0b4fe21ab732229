"""Write safetensors shards in a stream: the layout is fixed first, then every tensor goes straight to its place."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from compress.checkpoint.folder import new_folder
from compress.checkpoint.header import NAMES
from compress.checkpoint.target import check_apart, check_target
from compress.console import human_bytes
from compress.errors import InputError

__all__ = ["ShardWriter", "Spec", "check_apart", "check_target", "layout", "new_folder", "require_space"]

Spec = tuple[str, torch.dtype, Sequence[int]]


class ShardWriter:
    """Writes the tensors `specs` (name, dtype, shape) into an existing folder, in any order, one in memory at a time.

    One shard is `model.safetensors`; more are `model-00001-of-0000N.safetensors` with their index. A tensor larger
    than `shard_bytes` gets a shard to itself. Any thread may call `add`. Raises InputError when the disk is full, and
    ValueError when what is added is not what `specs` promised.
    """

    def __init__(
        self,
        folder: Path,
        specs: Sequence[Spec],
        *,
        shard_bytes: int = 5_000_000_000,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.bytes = sum(_size(spec) for spec in specs)
        self._specs = {name: (dtype, tuple(shape)) for name, dtype, shape in specs}
        if len(self._specs) != len(specs):
            raise ValueError("a name stands in the specs twice")
        require_space(folder, self.bytes)
        shards = list(_shards(specs, shard_bytes))
        self.files = [folder / _file_name(i, len(shards)) for i in range(len(shards))]
        self._handles: list[int] = []
        self._places: dict[str, tuple[int, int]] = {}  # name → (shard, offset in its file)
        self._left = set(self._specs)
        try:
            for i, shard in enumerate(shards):
                header, offsets = layout(shard, {"format": "pt", **(metadata or {})})
                self._places.update({name: (i, offset) for name, offset in offsets.items()})
                with _full_disk(folder):
                    self._handles.append(os.open(self.files[i], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))
                    _write(self._handles[i], memoryview(header), 0)
            if len(shards) > 1:
                weights = {name: self.files[self._places[name][0]].name for name in self._specs}
                index = {"metadata": {"total_size": self.bytes}, "weight_map": dict(sorted(weights.items()))}
                with _full_disk(folder):
                    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
        except BaseException:
            self._release()
            raise

    def add(self, name: str, tensor: Tensor) -> None:
        """Write one tensor to its place; it may be on any device and need not be contiguous."""
        if name not in self._left:
            raise ValueError(f"{name} was {'written already' if name in self._specs else 'not in the specs'}")
        dtype, shape = self._specs[name]
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shape)}")
        shard, offset = self._places[name]
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        with _full_disk(self.folder):
            _write(self._handles[shard], flat.numpy().data, offset)
        self._left.discard(name)

    def close(self) -> None:
        """Close the files. Raises ValueError when a tensor was never added."""
        with _full_disk(self.folder):
            self._release()
        if self._left:
            raise ValueError(f"{len(self._left)} tensors were never written, among them {min(self._left)}")

    def _release(self) -> None:
        while self._handles:
            os.close(self._handles.pop())

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._release()


def require_space(folder: Path, count: int) -> None:
    """Raise InputError when fewer than `count` bytes are free on the disk of `folder`, which need not exist yet."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < count:
        have = f"needs {human_bytes(count)}, but {human_bytes(free)} are free on the disk"
        raise InputError(f"{folder}: {have}; make room or write elsewhere")


def _size(spec: Spec) -> int:
    return prod(spec[2]) * spec[1].itemsize


def _shards(specs: Sequence[Spec], limit: int) -> Iterator[list[Spec]]:
    shard: list[Spec] = []
    filled = 0
    for spec in specs:
        if shard and filled + _size(spec) > limit:
            yield shard
            shard, filled = [], 0
        shard.append(spec)
        filled += _size(spec)
    yield shard


def _file_name(i: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{i + 1:05d}-of-{count:05d}.safetensors"


def layout(shard: Sequence[Spec], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """A safetensors file's first bytes, and every tensor's offset in the file."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    starts: dict[str, int] = {}
    end = 0
    # Wide dtypes first, so that every tensor begins at a multiple of its item's size.
    for spec in sorted(shard, key=lambda spec: -spec[1].itemsize):
        name, dtype, shape = spec
        starts[name] = end
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [end, end + _size(spec)]}
        end += _size(spec)
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    first = len(raw).to_bytes(8, "little") + raw
    return first, {name: len(first) + start for name, start in starts.items()}


def _write(handle: int, view: memoryview, offset: int) -> None:
    while len(view):
        count = os.pwrite(handle, view, offset)
        view, offset = view[count:], offset + count


@contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"{folder}: the disk is full; make room or write elsewhere") from None
        raise
