"""A pruned .onnx file beside its input in ONNX Runtime: how alike their outputs are, and how fast they run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compress.evaluate.before_after import Evaluation
from compress.evaluate.budget import Budget
from compress.evaluate.latency import Latency
from compress.evaluate.turns import in_turns
from compress.inputs.batch import Batch, rows
from compress.metrics.change import similarity_change, time_change
from compress.metrics.kind import Figure, Quality, Scale
from compress.metrics.similarity import COSINE, sampled
from compress.onnx.session import Arrays, Session
from compress.onnx_model.file import is_cache
from compress.onnx_model.inputs import OnnxInputs

NAME = "output_cosine"


def compare_files(
    dense: Path, small: Path, inputs: OnnxInputs, batch: Batch, of: str, *, timed: bool, seconds: float | None
) -> Evaluation:
    """Both files on the samples of `batch`, which are `of` some source; caches are empty.

    Similarity is the cosine of a sample's outputs, of the first output that is floating-point numbers and no cache.
    Raises InputError where ONNX Runtime cannot open either.
    """
    threads = torch.get_num_threads()
    one, other = (_Run(Session(path, threads), batch) for path in (dense, small))
    before, after = one.result(), other.result()
    notes: list[str] = []
    quality = _quality(before, after) if before is not None and after is not None else None
    if quality is None:
        notes.append("quality not measured: the graph has no output of floating-point numbers to compare")
    changes = dict(quality.changes) if quality is not None else {}
    found = Evaluation(quality=quality, changes=changes, text=of if quality is not None else None, notes=notes)
    times = in_turns(one.seconds, other.seconds, Budget(seconds), label="measuring latency") if timed else None
    if times is None:
        return found
    changes["latency"] = time_change(*times)
    figures = [Latency.of(own, inputs, batch, threads) for own in times]
    return Evaluation(figures[0], figures[1], quality, changes, found.text, notes)


class _Run:
    """One file on one batch."""

    def __init__(self, session: Session, batch: Batch) -> None:
        self._session = session
        self._given: Arrays = {name: value.numpy() for name, value in batch.items()}
        for name, shape in session.shapes.items():
            if is_cache(name) and name not in self._given:
                sizes = [0 if isinstance(size, str) else size for size in shape[1:]]
                self._given[name] = np.zeros((rows(batch), *sizes), np.float32)

    def result(self) -> Tensor | None:
        """`[samples, …]` of the first output that is floating-point numbers."""
        found = self._session(self._given)
        value = next((v for name, v in found.items() if v.dtype.kind == "f" and not is_cache(name)), None)
        return None if value is None else torch.from_numpy(value.astype(np.float32))

    @property
    def seconds(self) -> Callable[[], float]:
        """Runs it once."""

        def once() -> float:
            start = time.perf_counter()
            self._session(self._given)
            return time.perf_counter() - start

        return once


def _quality(before: Tensor, after: Tensor) -> Quality:
    samples = len(before) if before.dim() > 1 else 1
    one, other = before.reshape(samples, -1), after.reshape(samples, -1)
    cosine = torch.nn.functional.cosine_similarity(one, other)
    value, errors = float(cosine.mean()), sampled(one, other)
    figure = Figure(NAME, "Output cosine to the dense model", f"{samples} samples", value, 1.0, True, Scale.SIMILARITY)
    changes = {NAME: similarity_change(errors[COSINE], samples)} if COSINE in errors else {}
    record = {"similarity": {"cosine": value, "lowest": float(cosine.min()), "samples": samples}}
    return Quality([figure], record, {}, changes, errors.get(COSINE))
