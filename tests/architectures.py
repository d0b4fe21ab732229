"""One table of the architectures that tests run: their classes, and which numbers their configurations call what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import transformers


@dataclass(frozen=True)
class Size:
    """The numbers of a model, whatever its configuration calls them; `groups` are heads of keys and values."""

    hidden: int = 32
    heads: int = 4
    groups: int = 2
    width: int = 8  # of a head
    channels: int = 48
    layers: int = 3
    vocabulary: int = 96
    positions: int = 64
    experts: int = 8
    expert_channels: int = 24


TINY = Size()

PLAIN = {
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "layers": "num_hidden_layers",
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
}
DENSE = {**PLAIN, "channels": "intermediate_size"}
GROUPED = {**DENSE, "groups": "num_key_value_heads"}
WIDE = {**GROUPED, "width": "head_dim"}  # the width of a head is a number of its own
MIXED = {**GROUPED, "expert_channels": "moe_intermediate_size", "experts": "num_experts"}
EXPERTS_ALONE = {**PLAIN, "groups": "num_key_value_heads", "expert_channels": "intermediate_size"}
LATENT = {**GROUPED, "expert_channels": "moe_intermediate_size", "experts": "n_routed_experts"}


@dataclass(frozen=True)
class Architecture:
    """A stock class, its configuration class and the pattern of its blocks' names (several apart by spaces).

    `keys` say under which key the configuration has which of `Size`'s numbers, those that it lacks left out; `values`
    are what else it is given.
    """

    model: str
    config: str
    blocks: str
    keys: Mapping[str, str]
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cls(self) -> Any:
        """The stock class."""
        return getattr(transformers, self.model)

    def arguments(self, size: Size = TINY, **changes: Any) -> dict[str, Any]:
        """What the configuration is made of; `changes` are by its own keys."""
        numbers = asdict(size)
        return {**{key: numbers[word] for word, key in self.keys.items()}, **self.values, **changes}

    def configuration(self, size: Size = TINY, **changes: Any) -> Any:
        """The stock configuration."""
        return getattr(transformers, self.config)(**self.arguments(size, **changes))


def _decoder(name: str, keys: Mapping[str, str], blocks: str = "model.layers.{}", **values: Any) -> Architecture:
    return Architecture(f"{name}ForCausalLM", f"{name}Config", blocks, keys, values)


def _masked(name: str, keys: Mapping[str, str], blocks: str, **values: Any) -> Architecture:
    return Architecture(f"{name}ForMaskedLM", f"{name}Config", blocks, keys, values)


IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None, "num_experts_per_tok": 2}
GEMMA = {"query_pre_attn_scalar": 8, "sliding_window": 8}
MLA = {
    **ENDS,
    "num_key_value_heads": 4,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
TWO_GROUPS = {"n_group": 2, "topk_group": 1}

MODELS: dict[str, Architecture] = {
    "llama": _decoder("Llama", GROUPED, tie_word_embeddings=True),
    "mistral": _decoder("Mistral", GROUPED, sliding_window=8),
    "qwen2": _decoder("Qwen2", GROUPED),
    "qwen3": _decoder("Qwen3", WIDE),
    "gemma2": _decoder("Gemma2", WIDE, **GEMMA),
    "gemma3": Architecture("Gemma3ForCausalLM", "Gemma3TextConfig", "model.layers.{}", WIDE, GEMMA),
    "phi3": _decoder("Phi3", GROUPED, **IDS),
    "gpt2": Architecture(
        "GPT2LMHeadModel",
        "GPT2Config",
        "transformer.h.{}",
        {
            "hidden": "n_embd",
            "heads": "n_head",
            "layers": "n_layer",
            "vocabulary": "vocab_size",
            "positions": "n_positions",
        },
        IDS,
    ),
    "opt": _decoder("OPT", {**PLAIN, "channels": "ffn_dim"}, "model.decoder.layers.{}"),
    "gpt_neox": _decoder("GPTNeoX", DENSE, "gpt_neox.layers.{}"),
    "falcon": _decoder("Falcon", PLAIN, "transformer.h.{}", **IDS, multi_query=True),
    "bert": _masked("Bert", DENSE, "bert.encoder.layer.{}"),
    "bert_encoder": Architecture("BertModel", "BertConfig", "encoder.layer.{}", DENSE),
    "roberta": _masked("Roberta", DENSE, "roberta.encoder.layer.{}"),
    "distilbert": _masked(
        "DistilBert",
        {
            "hidden": "dim",
            "heads": "n_heads",
            "layers": "n_layers",
            "channels": "hidden_dim",
            "vocabulary": "vocab_size",
        },
        "distilbert.transformer.layer.{}",
    ),
    "albert": _masked("Albert", DENSE, "albert.encoder.albert_layer_groups.0.albert_layers.0", embedding_size=16),
    "electra": _masked("Electra", DENSE, "electra.encoder.layer.{}", embedding_size=16),
    "t5": Architecture(
        "T5ForConditionalGeneration",
        "T5Config",
        "encoder.block.{} decoder.block.{}",
        {
            "hidden": "d_model",
            "width": "d_kv",
            "channels": "d_ff",
            "layers": "num_layers",
            "heads": "num_heads",
            "vocabulary": "vocab_size",
        },
    ),
}

MIXTURES: dict[str, Architecture] = {
    "mixtral": _decoder("Mixtral", {**EXPERTS_ALONE, "experts": "num_local_experts"}, **ENDS),
    "qwen2_moe": _decoder("Qwen2Moe", MIXED, **ENDS, shared_expert_intermediate_size=40),
    "qwen3_moe": _decoder("Qwen3Moe", {**MIXED, "width": "head_dim"}, **ENDS, norm_topk_prob=True),
    "olmoe": _decoder("Olmoe", {**EXPERTS_ALONE, "experts": "num_experts"}, **ENDS),
    "deepseek_v2": _decoder("DeepseekV2", LATENT, **MLA, topk_method="greedy"),
    "deepseek_v2_groups": _decoder("DeepseekV2", LATENT, **MLA, topk_method="group_limited_greedy", **TWO_GROUPS),
    "deepseek_v3": _decoder("DeepseekV3", LATENT, **MLA, **TWO_GROUPS),
    "gpt_oss": _decoder("GptOss", {**EXPERTS_ALONE, "experts": "num_local_experts", "width": "head_dim"}, **ENDS),
    "granitemoe": _decoder("GraniteMoe", {**EXPERTS_ALONE, "experts": "num_local_experts"}, **ENDS),
}
"""Of eight experts a token visits two."""

ARCHITECTURES = MODELS | MIXTURES
