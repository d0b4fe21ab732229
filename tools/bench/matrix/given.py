"""Inputs that a stock forward may take, found by trying: nothing of compress is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

TOWERS = (
    "vision_config",
    "encoder",
    "audio_config",
    "encoder_config",
    "text_config",
    "image_encoder",
    "backbone_config",
)
SEED = 0


def given(model: Any) -> dict[str, Tensor] | None:
    """The first candidate on which the model's forward gives a floating tensor; None where there is none."""
    for inputs in _candidates(model):
        with contextlib.suppress(Exception), torch.no_grad():  # foreign modeling code refuses in every way
            if tensors(model(**inputs)):
                return inputs
    return None


def tensors(output: Any) -> dict[str, Tensor]:
    """The floating tensors at the top of an output by name, several logits too: no caches, and no states in tuples."""
    named = dict(output.items() if hasattr(output, "items") else {"output": output}.items())
    if isinstance(several := named.get("logits"), tuple):
        named |= {f"logits.{place}": one for place, one in enumerate(several)}
    return {name: x.float() for name, x in named.items() if isinstance(x, Tensor) and x.is_floating_point() and x.dim()}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference of two outputs, as a share of the largest magnitude; infinite where they are not alike, as
    where they are not infinite in the same places."""
    if one.keys() != other.keys() or any(one[name].shape != other[name].shape for name in one):
        return float("inf")
    found = [_gap(one[name], other[name]) for name in one]
    return max(found) if found and all(value == value for value in found) else float("inf")


def _gap(one: Tensor, other: Tensor) -> float:
    gap = (one - other).masked_fill(one == other, 0).abs().max()
    return float(gap / other.masked_fill(other.isinf(), 0).abs().max().clamp_min(1e-12))


def _candidates(model: Any) -> Iterator[dict[str, Tensor]]:
    config, main = model.config, getattr(model, "main_input_name", "input_ids")
    generator = torch.Generator().manual_seed(SEED)
    words = getattr(config.get_text_config(), "vocab_size", None)
    words = words if isinstance(words, int) else 100
    ids = torch.randint(min(20, words - 1), words, (2, 16), generator=generator)
    side = {"decoder_input_ids": ids}
    shape = _image(config)
    pixels = torch.randn(2, *shape, generator=generator)
    frames = torch.randn(2, _number(config, 4, "num_frames", "frames_per_clip"), *shape, generator=generator)
    bins, length = _number(config, 80, "num_mel_bins", "feature_size", "input_feat_per_channel"), 0
    length = 2 * _number(config, 50, "max_source_positions")
    spectrum = torch.randn(2, bins, length, generator=generator)
    waves = torch.randn(2, 4000, generator=generator)
    if main == "input_ids":
        both = bool(getattr(config, "is_encoder_decoder", False))
        alone = [{main: ids, **side}, {main: ids}] if both else [{main: ids}, {main: ids, **side}]
        yield from alone
        for name, signal in (("pixel_values", pixels), ("input_features", spectrum), ("input_values", waves)):
            yield {main: ids, name: signal}
    elif "pixel_values" in main:
        yield from ({main: pixels}, {main: frames}, {main: pixels, "input_ids": ids}, {main: pixels, **side})
    else:
        signals = [spectrum, spectrum.transpose(1, 2), waves, waves[:, None], pixels, ids]
        for signal in signals:
            yield {main: signal}
            yield {main: signal, **side}


def _image(config: Any) -> tuple[int, int, int]:
    size = _found(config, "image_size", "img_size") or 64
    height, width = (size[0], size[-1]) if isinstance(size, list | tuple) else (size, size)
    return _number(config, 3, "num_channels", "in_channels", "in_chans"), height, width


def _number(config: Any, default: int, *names: str) -> int:
    value = _found(config, *names)
    return value if isinstance(value, int) else default


def _found(config: Any, *names: str) -> Any:
    """The first of these fields that the config has, or one of its towers."""
    for name in names:
        if (value := getattr(config, name, None)) is not None:
            return value
    for tower in TOWERS:
        below = getattr(config, tower, None)
        if below is not None and hasattr(below, "to_dict") and (value := _found(below, *names)) is not None:
            return value
    return None
