"""How fast a model's graph is in ONNX Runtime."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from compress.evaluate.latency import Latency
from compress.onnx import Session

WRITTEN, REPEATS, WARM_UP = 32, 9, 2


@dataclass(frozen=True)
class OrtSpeed:
    """`prefill`: one forward of the prompt. `decode`: tokens a second after it; None without a cache."""

    prefill: Latency
    decode: float | None


def ort_speed(path: Path, prompt: np.ndarray, *, written: int = WRITTEN) -> OrtSpeed:
    """Time the graph on `prompt`, int64 `[1, length]`, with as many threads as torch has; `written` tokens are decoded.

    A graph of a fixed shape is timed at that shape. Raises InputError when ONNX Runtime cannot open `path`.
    """
    threads = torch.get_num_threads()
    session = Session(path, threads)
    batch, length = (
        own if isinstance(own, int) else size
        for own, size in zip(session.shapes["input_ids"], prompt.shape, strict=True)
    )
    prompt = np.resize(prompt, (batch, length))
    mask, cache = np.ones_like(prompt), session.empty(batch)
    whole = {
        "input_ids": prompt,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(prompt),
        "position_ids": np.broadcast_to(np.arange(length), prompt.shape).astype(np.int64),
        "decoder_input_ids": prompt,
        **cache,
    }
    times = _times(lambda: session(whole), WARM_UP + REPEATS)[WARM_UP:]
    prefill = Latency(statistics.median(times), min(times), batch, length, REPEATS, threads)
    if not session.cached:
        return OrtSpeed(prefill, None)
    rounds = []
    for _ in range(3):
        logits, grown = session.step(prompt, mask, cache)
        start = time.perf_counter()
        for step in range(1, written + 1):
            token = logits[:, -1:].argmax(-1).astype(np.int64)
            logits, grown = session.step(token, np.ones((batch, length + step), np.int64), grown)
        rounds.append(time.perf_counter() - start)
    return OrtSpeed(prefill, batch * written / min(rounds))


def _times(run: Callable[[], object], repeats: int) -> list[float]:
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found
