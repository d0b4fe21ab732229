"""What blocks gave, recorded once, so that later runs start at any block: what lies before it costs nothing.

A run that only changes weights from some block on need not compute the blocks before. The model's own forward still
runs from its beginning, but a block before the start is not even loaded: it gives what it gave when it was recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten
from xxhash import xxh3_128

from compress.errors import InputError
from compress.inputs.batch import Batch
from compress.stream.baton import Walk
from compress.stream.stream import Stream


class Recording:
    """What each block gave for each batch, in the order in which blocks were visited.

    Kept in memory on the processor, or with a `folder` in one file per batch and visit there. A `Recorder` fills it,
    once; any number of `Replay`s read it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.visits: dict[int, list[str]] = {}  # batch → blocks
        self.batches: list[str] = []  # their digests
        self._kept: dict[tuple[int, int], tuple[list[Any], TreeSpec]] = {}

    def put(self, batch: int, block: str, output: Any) -> None:
        """Add what `block` gave for a batch; it may be changed in place afterwards."""
        visits = self.visits.setdefault(batch, [])
        flat, spec = tree_flatten(output)
        if self.folder is None:
            flat = [x.detach().cpu().clone() if isinstance(x, Tensor) else x for x in flat]
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            tensors = {str(i): x.detach().cpu().contiguous() for i, x in enumerate(flat) if isinstance(x, Tensor)}
            save_file(tensors, self._file(batch, len(visits)))
            flat = [None if isinstance(x, Tensor) else x for x in flat]
        self._kept[batch, len(visits)] = flat, spec
        visits.append(block)

    def get(self, batch: int, visit: int, device: torch.device) -> Any:
        """What a batch's `visit`-th block gave; the caller may change it."""
        flat, spec = self._kept[batch, visit]
        if self.folder is None:
            flat = [x.to(device, copy=True) if isinstance(x, Tensor) else x for x in flat]
        else:
            tensors = load_file(self._file(batch, visit), device=str(device))
            flat = [tensors.get(str(i), x) for i, x in enumerate(flat)]
        return tree_unflatten(flat, spec)

    def _file(self, batch: int, visit: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{batch}-{visit}.safetensors"


class Recorder(Stream):
    """A stream that keeps in `recording` what flows on from every block, changed blocks' too."""

    def __init__(self, *args: Any, recording: Recording, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.callbacks.inside:
            raise ValueError("a block whose projections wait for all batches gives nothing that could be recorded")
        self.recording = recording

    def run(self, batches: Sequence[Batch]) -> None:
        self.recording.batches = [_digest(batch) for batch in batches]
        super().run(batches)

    def proceed(self, walk: Walk, reply: Any = None) -> None:
        if walk.call is not None and walk.call.station in self.blocks:
            self.recording.put(walk.number, walk.call.station, reply)
        super().proceed(walk, reply)


class Replay(Stream):
    """A stream that runs the blocks from `start` on; those that were visited before it give what is recorded.

    `run` takes the batches that were recorded. Raises InputError for others, and where `start` was not visited.
    """

    def __init__(self, *args: Any, recording: Recording, start: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.recording, self.start = recording, start
        self._first: dict[int, int] = {}
        for batch, visits in recording.visits.items():
            if start not in visits:
                raise InputError(f"{start}: was not visited when the recording was made; it has {', '.join(visits)}")
            self._first[batch] = visits.index(start)
        self._passed = Counter[int]()

    def run(self, batches: Sequence[Batch]) -> None:
        if [_digest(batch) for batch in batches] != self.recording.batches:
            raise InputError(f"{self.start}: the recording is of other batches; record these before they are replayed")
        self._passed.clear()
        super().run(batches)

    def at_once(self, walk: Walk) -> bool:
        return super().at_once(walk) or self._is_recorded(walk)

    def execute(self, walk: Walk) -> Any:
        if not self._is_recorded(walk):
            return super().execute(walk)
        visit = self._passed[walk.number]
        self._passed[walk.number] += 1
        return self.recording.get(walk.number, visit, self.device)

    def _is_recorded(self, walk: Walk) -> bool:
        """Whether a batch waits at a block that lies before the start."""
        before = self._passed[walk.number] < self._first[walk.number]
        return before and walk.call is not None and walk.call.station in self.blocks


def _digest(batch: Batch) -> str:
    digest = xxh3_128()
    for name, tensor in sorted(batch.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
