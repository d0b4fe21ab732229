"""How fast a model reads a prompt, writes after it, and works through many."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.evaluate.latency import Latency, latency

WRITTEN, ROWS, LEAST = 32, 8, 3


@dataclass(frozen=True)
class Speed:
    """`prefill`: one prompt. `decode`: tokens a second written after it, greedily with the key/value cache; None for
    models that write nothing. `throughput`: tokens a second of forwards over `rows` prompts at once."""

    prefill: Latency
    decode: float | None
    throughput: float
    rows: int


def speed(model: nn.Module, prompt: Tensor, *, written: int = WRITTEN, rows: int = ROWS) -> Speed:
    """Time `model` on `prompt`, int64 `[1, length]`; `written` tokens are decoded, `rows` copies read at once."""
    one, many = {"input_ids": prompt}, {"input_ids": prompt.expand(rows, -1).contiguous()}
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        one["decoder_input_ids"], many["decoder_input_ids"] = one["input_ids"], many["input_ids"]
    prefill = latency(model, one)
    together = latency(model, many, repeats=LEAST, warm_up=1)
    decoded = _decode(model, prompt, written) if _writes(model) else None
    return Speed(prefill, decoded, rows * prompt.shape[1] / together.seconds, rows)


@torch.inference_mode()
def _decode(model: nn.Module, prompt: Tensor, written: int) -> float:
    """Tokens a second of single-token forwards, the prompt's not counted; the best of three rounds."""
    device = next(model.parameters()).device
    rounds = []
    for _ in range(LEAST):
        output = model(input_ids=prompt.to(device), use_cache=True)
        cache, token = output.past_key_values, output.logits[:, -1:].argmax(-1)
        start = time.perf_counter()
        for _ in range(written):
            output = model(input_ids=token, past_key_values=cache, use_cache=True)
            token = output.logits[:, -1:].argmax(-1)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        rounds.append(time.perf_counter() - start)
    return written / min(rounds)


def _writes(model: nn.Module) -> bool:
    encoder_decoder = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    return not encoder_decoder and hasattr(model, "can_generate") and model.can_generate()  # pyright: ignore
