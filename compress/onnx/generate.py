"""Greedy generation in ONNX Runtime alone."""

from __future__ import annotations

import numpy as np

from compress.onnx.session import Session


def greedy(
    session: Session,
    prompt: np.ndarray,
    steps: int,
    *,
    mask: np.ndarray | None = None,
    stop: int | None = None,
    start: int | None = None,
) -> np.ndarray:
    """The `steps` likeliest tokens after `prompt`, int64 `[batch, length]`, one by one: int64 `[batch, at most steps]`.

    `mask` `[batch, length]` is zero at the padding, on the left. A row that wrote `stop` goes on writing it; when all
    have, it ends. `start` is the first token of the decoder of a graph that has an encoder too.
    """
    mask = np.ones_like(prompt) if mask is None else mask
    batch = prompt.shape[0]
    written = np.zeros((batch, 0), np.int64)
    cache, ids = session.empty(batch), prompt
    for _ in range(steps):
        seen = np.concatenate([mask, np.ones_like(written)], 1)
        if start is not None:
            begun = np.concatenate([np.full((batch, 1), start), written], 1)
            logits = session({"input_ids": prompt, "attention_mask": mask, "decoder_input_ids": begun})["logits"]
        elif session.cached:
            logits, cache = session.step(ids, seen, cache)
        else:
            logits, _ = session.step(np.concatenate([prompt, written], 1), seen, {})
        token = logits[:, -1].argmax(-1)
        if stop is not None:
            token = np.where((written == stop).any(1), stop, token)
        ids = token[:, None].astype(np.int64)
        written = np.concatenate([written, ids], 1)
        if stop is not None and (written == stop).any(1).all():
            break
    return written
