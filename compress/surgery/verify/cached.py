"""Decoding token by token with a cache, as `generate` does by default, against one forward without."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import VerifyError
from compress.inputs.batch import Batch
from compress.model.build import runnable_model
from compress.model.model import Model
from compress.model.weights import Weights
from compress.stream.stream import Stream, StreamCallbacks
from compress.surgery.verify.forward import Advance, output
from compress.surgery.verify.noise import apart

STEPS = 4
"""Tokens decoded one at a time, after all others were given at once."""


def decodes(model: nn.Module, source: Model, batch: Batch) -> bool:
    """Does the model generate, with a cache by default, and are there tokens enough?"""
    able: Any = getattr(model, "can_generate", None)
    written = source.inputs.written(batch) if able is not None and able() else None
    return written is not None and written.tokens.shape[1] > STEPS


def check_cache(
    source: Model,
    model: nn.Module,
    weights: Weights,
    blocks: Iterable[str],
    batch: Batch,
    found: Tensor,
    tolerance: float,
    advance: Advance,
) -> str:
    """Decode the last tokens of `batch` by `model`, whose forward gave `found` `[rows, length, vocabulary]`.

    A model whose original decodes no better is not blamed on pruning. Returns what is to be said. Raises VerifyError.
    """
    wanted = found[:, -STEPS - 1 :]
    try:
        off = apart(_decoded(source, model, weights, blocks, batch, advance), wanted)
    except Exception as error:  # foreign modeling code may raise anything
        if isinstance(dense := _dense_off(source, batch), float):
            raise VerifyError(
                f"decoding with a cache, the default, fails: {_line(error)}; the input decodes so. "
                "The architecture sizes its cache by what pruning changed: prune something else"
            ) from error
        return f"; decoding with a cache was not checked: it fails for the input too ({dense})"
    if off <= tolerance:
        return f"; {STEPS} tokens decoded with a cache agree to {off:.0e}"
    dense = _dense_off(source, batch)
    if isinstance(dense, float) and not off <= 10 * max(dense, tolerance):
        raise VerifyError(
            f"decoding with a cache differs from the forward without by {off:.1e} of its largest value "
            f"(at most {tolerance:.0e} is right; the input's differs by {dense:.0e})"
        )
    theirs = f"by {dense:.0e}" if isinstance(dense, float) else f"or fails ({dense})"
    return f"; decoding with a cache differs from the forward without by {off:.0e}, and the input's does {theirs}"


def _dense_off(source: Model, batch: Batch) -> float | str:
    """How far the input's own decoding is off, or why it fails."""
    model = runnable_model(source.checkpoint)
    weights, blocks = Weights(source.checkpoint, model), source.graph.blocks
    try:
        (whole,) = output(model, weights, blocks, batch, lambda: None)
        return apart(_decoded(source, model, weights, blocks, batch, lambda: None), whole[:, -STEPS - 1 :])
    except Exception as error:  # as above
        return _line(error)


def _decoded(
    source: Model, model: nn.Module, weights: Weights, blocks: Iterable[str], batch: Batch, advance: Advance
) -> Tensor:
    """Logits `[rows, STEPS + 1, vocabulary]` at the last positions: all but STEPS tokens at once, then one by one."""
    from transformers import GenerationConfig

    generating: Any = model
    written = source.inputs.written(batch)
    assert written is not None, "a model that does not decode"
    ids = written.tokens
    settings = GenerationConfig(
        max_new_tokens=STEPS + 1,
        do_sample=False,
        use_cache=True,
        decoder_start_token_id=written.start,
        output_logits=True,
        return_dict_in_generate=True,
    )

    def follow(row: int, before: Tensor) -> list[int]:
        return [int(ids[row, min(len(before), ids.shape[1] - 1)])]

    def forward(**inputs: Tensor) -> Any:
        return generating.generate(**inputs, generation_config=settings, prefix_allowed_tokens_fn=follow)

    steps: list[Tensor] = []
    callbacks = StreamCallbacks(end=lambda output, batch: steps.extend(output.logits), leave=lambda block: advance())
    own, generating.generation_config = generating.generation_config, GenerationConfig()  # whose values would be added
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Stream(model, weights, blocks, callbacks, forward=forward).run([written.prompt(ids.shape[1] - STEPS)])
    finally:
        generating.generation_config = own
    return torch.stack(steps, 1).float()


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
