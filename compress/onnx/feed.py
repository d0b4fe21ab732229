"""Samples as a graph takes them, and tokens written after them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.inputs.batch import Batch, given, rows
from compress.onnx.interface import filled
from compress.onnx.session import Arrays, Session

IDS = "input_ids"


@dataclass(frozen=True)
class Written:
    """Logits `[batch, new, vocabulary]` of the last step, the cache behind it, and how many tokens are in that."""

    logits: np.ndarray
    cache: Arrays
    length: int


class Feed:
    """A batch for `session`, whose samples are repeated or cut to the sizes that the graph has fixed: `batch`."""

    def __init__(self, session: Session, batch: Batch) -> None:
        self._session = session
        taken = {name: value for name, value in given(batch).items() if name in session.shapes}
        fitted = {name: _fitted(value, session.shapes[name]) for name, value in taken.items()}
        self.batch: Batch = filled(fitted) if IDS in fitted else fitted
        self._arrays = {name: value.numpy() for name, value in self.batch.items()}
        self._empty = session.empty(rows(self.batch))

    def run(self) -> Arrays:
        """The graph's outputs for the batch."""
        return self._session({**self._arrays, **self._empty})

    def begin(self) -> Written:
        """What a graph with a cache gives for the batch."""
        ids = self._arrays[IDS]
        return Written(*self._session.step(ids, np.ones_like(ids), self._empty), ids.shape[1])

    def follow(self, before: Written) -> Written:
        """The likeliest token after what is written, read."""
        token = before.logits[:, -1:].argmax(-1).astype(np.int64)
        length = before.length + 1
        return Written(*self._session.step(token, np.ones((len(token), length), np.int64), before.cache), length)


def _fitted(value: Tensor, shape: list[int | str]) -> Tensor:
    sizes = [own if isinstance(own, int) else size for own, size in zip(shape, value.shape, strict=True)]
    return torch.from_numpy(np.resize(value.numpy(), sizes))
