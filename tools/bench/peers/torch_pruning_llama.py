"""Torch-Pruning 1.6.1 on a Llama: MLP channels alone, or with a third of the query heads, by its criteria."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

CRITERIA = ("magnitude", "taylor", "hessian")


def prune(model: LlamaForCausalLM, rows: Sequence[Tensor], share: float, criterion: str, *, heads: bool) -> None:
    """Prune `model` in place until `share` of its blocks' parameters is gone; `rows` are `[batch, length]` tokens.

    The same share of channels goes in every layer. With `heads` a third of the query heads goes too, of which that
    library removes none that a key/value head needs, and as many fewer channels. It repairs nothing. Raises what the
    library does where it cannot: RuntimeError for heads in groups whose width the query heads do not divide.
    """
    import torch_pruning as tp  # pyright: ignore[reportMissingImports]

    importance = {
        "magnitude": tp.importance.GroupMagnitudeImportance,
        "taylor": tp.importance.GroupTaylorImportance,
        "hessian": tp.importance.GroupHessianImportance,
    }[criterion]()
    _gradients(model, rows, criterion, importance)
    layer: Any = model.model.layers[0]
    attention, mlp = layer.self_attn, layer.mlp
    block = sum(one.numel() for one in layer.parameters())
    queries = attention.q_proj.weight.numel() + attention.o_proj.weight.numel()
    of_heads = queries / 3 if heads else 0.0
    ratio = (share * block - of_heads) / sum(one.numel() for one in mlp.parameters())
    if not 0 < ratio < 1:
        raise ValueError(f"{share:.0%} of the blocks cannot go this way: it would take {ratio:.0%} of the channels")
    counts: dict[Any, int] = {}
    ends: list[Any] = [model.lm_head]
    for one in model.model.layers:
        inner: Any = one.self_attn
        ends += [inner.o_proj, one.mlp.down_proj]
        if heads:
            config = model.config
            counts[inner.q_proj] = config.num_attention_heads
            counts |= dict.fromkeys((inner.k_proj, inner.v_proj), config.num_key_value_heads)
        else:
            ends += [inner.q_proj, inner.k_proj, inner.v_proj]
    model.config.use_cache = False  # its search does not end with one
    pruner = tp.pruner.BasePruner(
        model,
        example_inputs=rows[0][:1, :8],
        importance=importance,
        pruning_ratio=ratio,
        ignored_layers=ends,
        num_heads=counts,
        prune_num_heads=heads,
        prune_head_dims=False,
        head_pruning_ratio=1 / 3 if heads else 0.0,
        output_transform=lambda output: output.logits,
    )
    pruner.step()
    for one in model.model.layers:
        inner = one.self_attn
        inner.num_key_value_groups = inner.q_proj.out_features // inner.k_proj.out_features
    model.zero_grad(set_to_none=True)


def _gradients(model: LlamaForCausalLM, rows: Sequence[Tensor], criterion: str, importance: Any) -> None:
    """What the criterion reads: the gradients of the mean loss, or those of every sample squared."""
    if criterion == "magnitude":
        return
    if criterion == "hessian":
        importance.zero_grad()
    with torch.enable_grad():
        for row in (one for batch in rows for one in batch.split(1)):
            logits = model(row, use_cache=False).logits
            cross_entropy(logits[0, :-1], row[0, 1:]).backward()
            if criterion == "hessian":
                importance.accumulate_grad(model)
                model.zero_grad(set_to_none=False)  # it writes into them afterwards
