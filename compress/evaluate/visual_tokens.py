"""What a rule about visual tokens saves of a prompt with a picture: tokens, FLOPs and cache, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compress.inputs.batch import Batch, given
from compress.runtime import traced
from compress.runtime.config import runtime_rules
from compress.runtime.tokens.find import places_of
from compress.runtime.tokens.places.kind import Places, core_of
from compress.runtime.tokens.trace import Trace

LENGTH, SAMPLES = 64, 4
"""Prompts that are looked at: tokens of text at most, beside one picture in each."""


@dataclass(frozen=True)
class VisualTokens:
    """Of prompts with so many `visual` tokens and so many of `text`, in the mean over prompts: the share of the visual
    ones that is `kept` by each layer of the decoder, the `flops` of these layers while they read the prompt, and the
    bytes of their key/value `cache`, both of the dense model and with the rule. `traces` say which tokens they were."""

    visual: float
    text: float
    kept: list[float]
    flops: tuple[float, float]
    cache: tuple[float, float]
    traces: list[Trace] = field(default_factory=list, compare=False)

    def written(self) -> dict[str, Any]:
        """What a report has of it."""
        return {
            "visual": self.visual,
            "text": self.text,
            "kept": self.kept,
            "flops": list(self.flops),
            "cache": list(self.cache),
        }


def prunes_tokens(config: Mapping[str, Any]) -> bool:
    """Whether a config has a rule about visual tokens."""
    return any(asked.kind == "tokens" for asked in runtime_rules(config, "config.json"))


@torch.inference_mode()
def looked(model: nn.Module, dense: nn.Module, batch: Batch) -> VisualTokens | None:
    """A model that obeys its rule, run over prompts with pictures, beside the `dense` one, whose costs are counted;
    None where the prompts have no pictures.

    FLOPs are those of the matrix products, by the model's weights and the lengths that its layers read.
    """
    if core_of(model) is None:
        return None
    device = next(model.parameters()).device
    with traced(model) as traces:
        model(**{name: value.to(device) for name, value in given(batch).items()})
    if not traces:
        return None
    places, trace = places_of(model), traces[-1]
    whole = trace.valid.sum(1)
    text = (trace.valid & ~trace.visual).sum(1)
    lengths = trace.lengths(len(places.layers))
    before, after = _costs(places_of(dense)), _costs(places)
    every = whole.expand(before.layers, -1)
    return VisualTokens(
        visual=float((whole - text).float().mean()),
        text=float(text.float().mean()),
        kept=((lengths - text) / (whole - text)).mean(1).tolist(),
        flops=(before.flops(every), after.flops(lengths)),
        cache=(before.cache(every), after.cache(lengths)),
        traces=[trace],
    )


@dataclass(frozen=True)
class _Costs:
    """What a decoder costs, in the mean over prompts, by the tokens `[layers, prompts]` that its layers read. By layer,
    float64 `[layers, 1]`: the `weights` that a token meets and how `most` keys it sees. `width` of all heads' queries
    together, `held` bytes of a token's key and value."""

    weights: Tensor
    most: Tensor
    width: int
    held: int

    @property
    def layers(self) -> int:
        return len(self.weights)

    def flops(self, lengths: Tensor) -> float:
        tokens = lengths.cpu().double()
        products = 2 * self.weights * tokens + 4 * self.width * tokens * tokens.minimum(self.most)
        return float(products.sum(0).mean())

    def cache(self, lengths: Tensor) -> float:
        return self.held * float(lengths.cpu().double().minimum(self.most).sum(0).mean())


def _costs(places: Places) -> _Costs:
    config: Any = places.text.config
    heads, layers = config.num_attention_heads, places.layers
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = getattr(config, "num_key_value_heads", None) or heads
    most = [_window(config, number) for number in range(len(layers))]
    weights = [_weights(layer, config) for layer in layers]
    held = 2 * keys * size * next(layers.parameters()).element_size()
    columns = (torch.tensor(some).double()[:, None] for some in (weights, most))
    return _Costs(*columns, width=heads * size, held=held)


def _weights(layer: nn.Module, config: Any) -> float:
    """Weights that a token meets in a layer: of stacks of experts those that the router gives it."""
    found = 0.0
    for parameter in layer.parameters():
        if parameter.dim() == 2:
            found += parameter.numel()
        elif parameter.dim() == 3:
            found += parameter.numel() * config.num_experts_per_tok / len(parameter)
    return found


def _window(config: Any, layer: int) -> float:
    """How many keys a token sees in a layer at most."""
    kinds = getattr(config, "layer_types", None)
    return float(config.sliding_window) if kinds and kinds[layer] == "sliding_attention" else float("inf")
