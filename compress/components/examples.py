"""What models of diffusers are called with: noise of the shapes that their configs name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import InputError

SAMPLES = 4
LENGTH = 16
"""Tokens of a prompt."""

STEPS = 1000
"""Of the usual noise schedules."""

Example = Callable[[Any, torch.Generator], Mapping[str, Any]]
EXAMPLES: dict[str, Example] = {}
"""Class of a component → the arguments of its forward, the sample being the first dimension."""


def example_of(module: nn.Module, seed: int) -> Mapping[str, Any]:
    """Arguments of a component's forward. Raises InputError for a class that is not known here."""
    name = type(module).__name__
    if name not in EXAMPLES:
        raise InputError(f"components: what a {name} is called with is not known; known are {', '.join(EXAMPLES)}")
    return EXAMPLES[name](module.config, torch.Generator().manual_seed(seed))


def _known_as(*names: str) -> Callable[[Example], Example]:
    def add(made: Example) -> Example:
        EXAMPLES.update(dict.fromkeys(names, made))
        return made

    return add


@_known_as("UNet2DConditionModel")
def _unet(config: Any, generator: torch.Generator) -> Mapping[str, Any]:
    if config.addition_embed_type is not None:
        raise InputError(f"components: a UNet2DConditionModel with addition_embed_type {config.addition_embed_type}")
    return {
        "sample": _noise(generator, config.in_channels, *_size(config.sample_size)),
        "timestep": _times(),
        "encoder_hidden_states": _noise(generator, LENGTH, _width(config.cross_attention_dim)),
    }


@_known_as("UNet2DModel")
def _unconditional(config: Any, generator: torch.Generator) -> Mapping[str, Any]:
    return {"sample": _noise(generator, config.in_channels, *_size(config.sample_size)), "timestep": _times()}


@_known_as("DiTTransformer2DModel")
def _dit(config: Any, generator: torch.Generator) -> Mapping[str, Any]:
    classes = torch.randint(0, config.num_embeds_ada_norm, (SAMPLES,), generator=generator)
    latents = _noise(generator, config.in_channels, *_size(config.sample_size))
    return {"hidden_states": latents, "timestep": _times(), "class_labels": classes}


@_known_as("AutoencoderKL")
def _autoencoder(config: Any, generator: torch.Generator) -> Mapping[str, Any]:
    return {"sample": _noise(generator, config.in_channels, *_size(config.sample_size)).tanh()}


def _noise(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(SAMPLES, *shape, generator=generator)


def _times() -> Tensor:
    """Spread over the schedule."""
    return torch.arange(SAMPLES) * (STEPS // SAMPLES) + STEPS // (2 * SAMPLES)


def _size(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _width(width: int | list[int]) -> int:
    return width if isinstance(width, int) else width[0]
