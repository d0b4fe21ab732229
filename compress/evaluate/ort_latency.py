"""How fast a model's graph is in ONNX Runtime."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from compress.evaluate.budget import Budget
from compress.evaluate.latency import Latency
from compress.evaluate.turns import in_turns
from compress.inputs.batch import Batch
from compress.inputs.kind import Inputs
from compress.metrics.change import Change, time_change
from compress.onnx import Feed, Session

WRITTEN, REPEATS, WARM_UP = 32, 9, 2


@dataclass(frozen=True)
class OrtSpeed:
    """`prefill`: one forward of the sample. `decode`: tokens a second after it; None without a cache."""

    prefill: Latency
    decode: float | None


@dataclass(frozen=True)
class Speeds:
    """Of the dense and of the pruned model, in turns; `changes`: `onnx_prefill` and `onnx_decode` (time of a token)."""

    before: OrtSpeed
    after: OrtSpeed
    changes: dict[str, Change]


class Timed:
    """The graph at `path` on `sample`, a batch of one, with as many threads as torch has.

    A graph of a fixed shape is timed at that shape. Raises InputError when ONNX Runtime cannot open `path`.
    """

    def __init__(self, path: Path, inputs: Inputs, sample: Batch, written: int = WRITTEN) -> None:
        self.threads, self._inputs, self._written = torch.get_num_threads(), inputs, written
        session = Session(path, self.threads)
        self.writes = session.cached
        self._feed = Feed(session, sample)

    def prefill(self) -> float:
        """Seconds of one forward of the sample."""
        start = time.perf_counter()
        self._feed.run()
        return time.perf_counter() - start

    def decode(self) -> float:
        """Seconds of a step that writes one token to each sequence after the sample; the mean of `written`."""
        state = self._feed.begin()
        start = time.perf_counter()
        for _ in range(self._written):
            state = self._feed.follow(state)
        return (time.perf_counter() - start) / self._written

    def speed(self, prefills: list[float], decodes: list[float] | None) -> OrtSpeed:
        """From the seconds that each run of `prefill` and `decode` took."""
        read = Latency.of(prefills, self._inputs, self._feed.batch, self.threads)
        return OrtSpeed(read, read.batch / statistics.median(decodes) if decodes else None)


def ort_speed(path: Path, inputs: Inputs, sample: Batch, *, written: int = WRITTEN) -> OrtSpeed:
    """Time one graph alone; see `Timed`."""
    graph = Timed(path, inputs, sample, written)
    times = [graph.prefill() for _ in range(WARM_UP + REPEATS)][WARM_UP:]
    return graph.speed(times, [graph.decode() for _ in range(3)] if graph.writes else None)


def ort_speeds(
    dense: Path, pruned: Path, inputs: Inputs, samples: tuple[Batch, Batch], budget: Budget
) -> Speeds | None:
    """Time two graphs in turns on one sample as each reads it; None where the budget does not hold enough rounds."""
    one, other = Timed(dense, inputs, samples[0]), Timed(pruned, inputs, samples[1])
    read = in_turns(one.prefill, other.prefill, budget, label="measuring latency in ONNX Runtime")
    if read is None:
        return None
    changes = {"onnx_prefill": time_change(*read)}
    wrote = None
    if one.writes and other.writes:
        wrote = in_turns(one.decode, other.decode, budget, label="measuring decoding in ONNX Runtime")
    if wrote is not None:
        changes["onnx_decode"] = time_change(*wrote)
    before, after = (graph.speed(read[i], wrote[i] if wrote else None) for i, graph in enumerate((one, other)))
    return Speeds(before, after, changes)
