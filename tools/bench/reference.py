"""The published formulas, written down again from the papers' released code and run on the dense model in memory.

Nothing here uses our graph, criteria, allocators or repairs: plain hooks, plain autograd and boolean masks on a Llama
with grouped heads. What the released code does for multi-head attention is done for whole key/value groups. Every
method gets the same sequences `[samples, length]`; `share` is the share of all head and channel parameters to go.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Masks:
    """Kept groups `[layers, groups]` and kept channels `[layers, channels]`, bool."""

    heads: Tensor
    channels: Tensor


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama, and parameters that go with one key/value group and with one channel."""

    layers: int
    groups: int
    width: int  # input channels of o_proj that belong to one group
    channels: int
    group_cost: int
    channel_cost: int

    @staticmethod
    def of(model: Any) -> Shape:
        config = model.config
        queries = config.num_attention_heads // config.num_key_value_heads
        return Shape(
            config.num_hidden_layers,
            config.num_key_value_heads,
            queries * config.head_dim,
            config.intermediate_size,
            (2 * queries + 2) * config.head_dim * config.hidden_size,
            3 * config.hidden_size,
        )

    @property
    def total(self) -> int:
        return self.layers * (self.groups * self.group_cost + self.channels * self.channel_cost)

    def removed(self, masks: Masks) -> float:
        """Share of the heads' and channels' parameters that is gone."""
        gone = (~masks.heads).sum() * self.group_cost + (~masks.channels).sum() * self.channel_cost
        return float(gone) / self.total


def flap(model: Any, rows: Tensor, share: float) -> tuple[Any, Masks]:
    """FLAP (An et al. 2023): WIFV, standardised per layer, one ranking over the model (AL-AM), biases repaired."""
    shape = Shape.of(model)
    means, attention, channels = [], [], []
    running = [_Fluctuation() for _ in _consumers(model)]
    for row in rows:
        for seen, x in zip(running, _inputs(model, row[None]), strict=True):
            seen.add(x)
    for i, (consumer, seen) in enumerate(zip(_consumers(model), running, strict=True)):
        metric = seen.fluctuation * consumer.weight.pow(2).sum(0)
        means.append(seen.mean)
        (channels if i % 2 else attention).append(metric if i % 2 else metric**2)
    heads = _standardised(torch.stack(attention)).view(shape.layers, shape.groups, shape.width).mean(2)
    neurons = _standardised(torch.stack(channels))
    pooled = torch.cat([heads.flatten(), neurons.flatten()])
    ranked, order = pooled.sort(descending=True)
    cost = torch.ones(len(pooled))
    cost[order < heads.numel()] = shape.group_cost / shape.channel_cost
    threshold = ranked[(cost.cumsum(0) - cost.sum() * (1 - share)).abs().argmin()]
    masks = Masks(heads > threshold, neurons > threshold)
    return masked(model, masks, means), masks


def wanda_sp(model: Any, rows: Tensor, share: float) -> tuple[Any, Masks]:
    """FLAP's baseline: mean over outputs of |w|·‖x‖, the same share of every layer, layers one after the other.

    The statistics of a layer see the pruned layers before it.
    """
    shape = Shape.of(model)
    gone = _uniform(shape, share)
    kept_heads = torch.ones(shape.layers, shape.groups, dtype=torch.bool)
    kept_channels = torch.ones(shape.layers, shape.channels, dtype=torch.bool)
    for layer in range(shape.layers):
        now = masked(model, Masks(kept_heads, kept_channels))
        squares = [torch.zeros(consumer.in_features) for consumer in _consumers(model)]
        for row in rows:
            for total, x in zip(squares, _inputs(now, row[None]), strict=True):
                total += x.pow(2).sum(0) / len(rows)
        scores = [
            (consumer.weight.abs() * squares[2 * layer + i].sqrt()).mean(0)
            for i, consumer in enumerate(_consumers(model)[2 * layer : 2 * layer + 2])
        ]
        kept_heads[layer] = _best(scores[0].view(shape.groups, shape.width).sum(1), gone[0])
        kept_channels[layer] = _best(scores[1], gone[1])
    masks = Masks(kept_heads, kept_channels)
    return masked(model, masks), masks


def llm_pruner(model: Any, rows: Tensor, share: float, *, second: bool = False) -> tuple[Any, Masks]:
    """LLM-Pruner (Ma et al. 2023): Σ |w·g| over the rows and columns of a group, the same share of every layer.

    `second` is its `param_mix`: |w·g − ½·w·A·w| with A the mean over samples of squared gradients.
    """
    shape, model = Shape.of(model), copy.deepcopy(model)
    fisher: dict[Any, Tensor] = {p: torch.zeros_like(p) for p in model.parameters()}
    total: dict[Any, Tensor] = {p: torch.zeros_like(p) for p in model.parameters()}
    with torch.enable_grad():
        for row in rows:
            model.zero_grad()
            logits = model(row[None], use_cache=False).logits[0]
            functional.cross_entropy(logits[:-1], row[1:]).backward()
            for p in model.parameters():
                assert p.grad is not None
                total[p] += p.grad / len(rows)
                fisher[p] += p.grad**2 / len(rows)

    def saliency(module: nn.Linear) -> Tensor:
        w = module.weight
        change = w * total[w] - (0.5 * w * fisher[w] * w if second else 0)
        return change.abs()

    gone, heads, channels = _uniform(shape, share), [], []
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        rows_of = [saliency(p).sum(1).view(shape.groups, -1).sum(1) for p in _inner(attention)]
        columns = saliency(attention.o_proj).sum(0).view(shape.groups, -1).sum(1)
        heads.append(_best(torch.stack([*rows_of, columns]).sum(0), gone[0]))
        rows_of = [saliency(p).sum(1) for p in (mlp.gate_proj, mlp.up_proj)]
        channels.append(_best(torch.stack([*rows_of, saliency(mlp.down_proj).sum(0)]).sum(0), gone[1]))
    model.zero_grad()
    masks = Masks(torch.stack(heads), torch.stack(channels))
    return masked(model, masks), masks


def masked(model: Any, masks: Masks, means: list[Tensor] | None = None) -> Any:
    """A copy whose consumers read nothing of what is gone; with the inputs' `means`, biases stand in for it."""
    shape, model = Shape.of(model), copy.deepcopy(model)
    for i, consumer in enumerate(_consumers(model)):
        kept = masks.channels[i // 2] if i % 2 else masks.heads[i // 2].repeat_interleave(shape.width)
        if means is not None:
            consumer.bias = nn.Parameter((means[i] * ~kept) @ consumer.weight.detach().T)
        consumer.weight = nn.Parameter(consumer.weight.detach() * kept)
    return model


class _Fluctuation:
    """FLAP's running statistics as released, a sample at a time; the first one gives no fluctuation."""

    def __init__(self) -> None:
        self.samples, self.mean, self.fluctuation = 0, torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        """`x` `[tokens, in]` of one sample."""
        self.mean = self.mean * (self.samples / (self.samples + 1)) + x.mean(0) / (self.samples + 1)
        if self.samples:
            self.fluctuation = self.fluctuation * ((self.samples - 1) / self.samples)
            # In the released code the "old" mean is the new one, as it is changed in place.
            self.fluctuation = self.fluctuation + (x - self.mean).pow(2).sum(0) / (self.samples + 1)
        self.samples += 1


def _consumers(model: Any) -> list[nn.Linear]:
    """o_proj and down_proj of every layer, in turns."""
    return [p for layer in model.model.layers for p in (layer.self_attn.o_proj, layer.mlp.down_proj)]


def _inner(attention: Any) -> Iterator[nn.Linear]:
    yield from (attention.q_proj, attention.k_proj, attention.v_proj)


def _inputs(model: Any, ids: Tensor) -> list[Tensor]:
    """What the consumers are given, `[tokens, in]` each."""
    seen: list[Tensor] = []

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0].detach().flatten(0, 1))

    handles = [consumer.register_forward_pre_hook(hook) for consumer in _consumers(model)]
    try:
        with torch.no_grad():
            model(ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _standardised(values: Tensor) -> Tensor:
    return (values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True)


def _uniform(shape: Shape, share: float) -> tuple[int, int]:
    """Groups and channels that every layer loses: groups rounded, channels up to the budget."""
    groups = int(share * shape.groups + 0.5)
    left = share * shape.total / shape.layers - groups * shape.group_cost
    return groups, min(round(left / shape.channel_cost), shape.channels - 1)


def _best(scores: Tensor, gone: int) -> Tensor:
    kept = torch.ones(len(scores), dtype=torch.bool)
    kept[scores.argsort()[:gone]] = False
    return kept


METHODS: dict[str, Callable[[Any, Tensor, float], tuple[Any, Masks]]] = {
    "FLAP (WIFV, AL-AM, bias)": flap,
    "Wanda-sp": wanda_sp,
    "LLM-Pruner, first order": llm_pruner,
    "LLM-Pruner, mixed": lambda model, rows, share: llm_pruner(model, rows, share, second=True),
}
