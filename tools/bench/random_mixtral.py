"""Random Mixtral checkpoints of a chosen size, with a tensor for every expert's projection, as on the hub."""

from __future__ import annotations

from pathlib import Path

import torch
from random_llama import Spec, write_noise
from transformers import MixtralConfig


def write(
    folder: Path,
    *,
    layers: int,
    hidden: int,
    channels: int,
    heads: int,
    experts: int,
    dtype: str,
    vocabulary: int = 8000,
) -> int:
    """Write a Mixtral without tokenizer into a new `folder`; returns the bytes of its weights."""
    config = MixtralConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=channels,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        num_local_experts=experts,
        architectures=["MixtralForCausalLM"],
        dtype=dtype,
    )
    kind = getattr(torch, dtype)
    specs: list[Spec] = [("model.embed_tokens.weight", kind, (vocabulary, hidden))]
    for layer in range(layers):
        place = f"model.layers.{layer}."
        specs += [(f"{place}self_attn.{name}_proj.weight", kind, (hidden, hidden)) for name in "qkvo"]
        specs += [(f"{place}{name}_layernorm.weight", kind, (hidden,)) for name in ("input", "post_attention")]
        specs.append((f"{place}block_sparse_moe.gate.weight", kind, (experts, hidden)))
        for expert in range(experts):
            own = f"{place}block_sparse_moe.experts.{expert}."
            specs += [(f"{own}{name}.weight", kind, (channels, hidden)) for name in ("w1", "w3")]
            specs.append((f"{own}w2.weight", kind, (hidden, channels)))
    specs += [("model.norm.weight", kind, (hidden,)), ("lm_head.weight", kind, (vocabulary, hidden))]
    return write_noise(folder, config, specs)
