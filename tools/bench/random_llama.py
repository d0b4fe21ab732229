"""Random Llama checkpoints of a chosen size, written tensor by tensor."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig

from compress.checkpoint.write import ShardWriter

Spec = tuple[str, torch.dtype, tuple[int, ...]]


def write(
    folder: Path, *, layers: int, hidden: int, channels: int, heads: int, groups: int, vocabulary: int = 32000
) -> int:
    """Write a float32 Llama without tokenizer into a new `folder`; returns the bytes of its weights."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=channels,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
    )
    with torch.device("meta"):
        empty = LlamaForCausalLM(config)
    specs = [(name, torch.float32, tuple(tensor.shape)) for name, tensor in empty.state_dict().items()]
    return write_noise(folder, config, specs)


def write_noise(folder: Path, config: PretrainedConfig, specs: list[Spec]) -> int:
    """Write `config` and tensors of normal noise, gains of one, into a new `folder`; returns their bytes."""
    pool = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0))
    folder.mkdir(parents=True)
    with ShardWriter(folder, specs, shard_bytes=2_000_000_000) as writer:
        for number, (name, dtype, shape) in enumerate(specs):
            size = torch.Size(shape).numel()
            noise = pool.roll(number * 1009).repeat(-(-size // len(pool)))[:size].view(shape)
            writer.add(name, (torch.ones(shape) if len(shape) == 1 else noise * shape[-1] ** -0.5).to(dtype))
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=2))
    return writer.bytes
