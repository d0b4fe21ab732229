"""Tiny random models of every architecture that calibration must run, as stock transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from compress.checkpoint.open import Checkpoint, open_checkpoint
from compress.graph.families import Graph

VOCABULARY = 96
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**SHAPE, "num_key_value_heads": 2}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GEMMA = {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8}
LAYERS = "model.layers.{}"

MODELS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**GROUPED, "tie_word_embeddings": True}, LAYERS),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**GROUPED, "sliding_window": 8}, LAYERS),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED, LAYERS),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**GROUPED, "head_dim": 8}, LAYERS),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", GEMMA, LAYERS),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", GEMMA, LAYERS),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {**GROUPED, **IDS}, LAYERS),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {**IDS, "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
        "transformer.h.{}",
    ),
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32},
        "model.decoder.layers.{}",
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", SHAPE, "gpt_neox.layers.{}"),
    "falcon": ("FalconForCausalLM", "FalconConfig", {**SHAPE, **IDS, "multi_query": True}, "transformer.h.{}"),
    "bert": ("BertForMaskedLM", "BertConfig", SHAPE, "bert.encoder.layer.{}"),
    "bert_encoder": ("BertModel", "BertConfig", SHAPE, "encoder.layer.{}"),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", SHAPE, "roberta.encoder.layer.{}"),
    "distilbert": (
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": VOCABULARY, "dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4},
        "distilbert.transformer.layer.{}",
    ),
    "albert": (
        "AlbertForMaskedLM",
        "AlbertConfig",
        {**SHAPE, "embedding_size": 16},
        "albert.encoder.albert_layer_groups.0.albert_layers.0",
    ),
    "electra": ("ElectraForMaskedLM", "ElectraConfig", {**SHAPE, "embedding_size": 16}, "electra.encoder.layer.{}"),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4},
        "encoder.block.{} decoder.block.{}",
    ),
}


def save(name: str, folder: Path, **changes: Any) -> Checkpoint:
    """A random model of the architecture, saved and opened."""
    cls, config, arguments, _ = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, cls)(getattr(transformers, config)(**{**arguments, **changes}))
    for parameter in model.parameters():  # biases and gains are constant at the start, and would hide mistakes
        if parameter.dim() < 2:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return open_checkpoint(folder)


def stock(name: str, folder: Path) -> Any:
    """The saved model as stock transformers loads it."""
    return getattr(transformers, MODELS[name][0]).from_pretrained(folder).eval()


def graph(name: str) -> Graph:
    """A graph that knows the blocks only."""
    pattern = MODELS[name][3]
    names = dict.fromkeys(part.format(i) for part in pattern.split() for i in range(3))
    return Graph(layouts={}, families={}, blocks=tuple(names), works=())


def batches(name: str, rows: tuple[int, ...] = (2, 2, 2), length: int = 12) -> list[dict[str, Tensor]]:
    """Random tokens, with what else the architecture's forward and loss take."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for count in rows:
        ids = torch.randint(3, VOCABULARY, (count, length), generator=generator)
        more = {}
        if name == "t5" or "MaskedLM" in MODELS[name][0]:
            more["labels"] = ids.flip(1)
        if name == "t5":
            more["decoder_input_ids"] = ids.roll(1, 1)
        found.append({"input_ids": ids, **more})
    return found


def projections(model: nn.Module, blocks: tuple[str, ...]) -> set[str]:
    """Weights of the plain projections inside the blocks."""
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and name.startswith(tuple(f"{block}." for block in blocks))
    }
