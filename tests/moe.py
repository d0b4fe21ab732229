"""Tiny mixture-of-experts models: random weights, three layers, eight experts of which a token visits two."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "num_experts_per_tok": 2,
    "eos_token_id": 0,
    "bos_token_id": 0,
    "pad_token_id": None,
}
LATENT = {
    **SHAPE,
    "num_key_value_heads": 4,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
GROUPS = {"n_group": 2, "topk_group": 1}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {**SHAPE, "intermediate_size": 24, "num_local_experts": 8}),
    "qwen2_moe": (
        "Qwen2Moe",
        {
            **SHAPE,
            "intermediate_size": 48,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 40,
            "num_experts": 8,
        },
    ),
    "qwen3_moe": (
        "Qwen3Moe",
        {
            **SHAPE,
            "head_dim": 8,
            "intermediate_size": 48,
            "moe_intermediate_size": 24,
            "num_experts": 8,
            "norm_topk_prob": True,
        },
    ),
    "olmoe": ("Olmoe", {**SHAPE, "intermediate_size": 24, "num_experts": 8}),
    "deepseek_v2": ("DeepseekV2", {**LATENT, "topk_method": "greedy"}),
    "deepseek_v2_groups": ("DeepseekV2", {**LATENT, "topk_method": "group_limited_greedy", **GROUPS}),
    "deepseek_v3": ("DeepseekV3", {**LATENT, **GROUPS}),
    "gpt_oss": ("GptOss", {**SHAPE, "head_dim": 8, "intermediate_size": 24, "num_local_experts": 8}),
    "granitemoe": ("GraniteMoe", {**SHAPE, "intermediate_size": 24, "num_local_experts": 8}),
}


def architecture(name: str) -> Any:
    """The stock class with a language model head."""
    return getattr(transformers, MODELS[name][0] + "ForCausalLM")


def save(name: str, folder: Path, **changes: Any) -> Path:
    """A random model whose router has clear preferences."""
    config = getattr(transformers, MODELS[name][0] + "Config")(**{**MODELS[name][1], **changes})
    torch.manual_seed(0)
    model = architecture(name)(config)
    for key, tensor in model.state_dict().items():
        if tensor.dim() == 1 and "inv_freq" not in key:
            tensor += 0.1 * torch.randn_like(tensor)
        if key.endswith(("gate.weight", "router.weight")):
            tensor += torch.randn_like(tensor)
    model.save_pretrained(folder)
    return folder


def stock(name: str, folder: Path) -> Any:
    """The saved model as stock transformers load it; nothing in the file may be missing or left over."""
    model, said = architecture(name).from_pretrained(folder, output_loading_info=True)
    assert not any(said.values()), said
    return model.eval()


def tokens(rows: int = 3, length: int = 12, seed: int = 3) -> torch.Tensor:
    """Random ids `[rows, length]`."""
    return torch.randint(1, 96, (rows, length), generator=torch.Generator().manual_seed(seed))


def blocks(model: nn.Module) -> dict[int, nn.Module]:
    """Layer → its module with a router and stacked experts."""
    found = {}
    for i, layer in enumerate(model.model.layers):
        inside = next((m for m in (getattr(layer, "mlp", None), getattr(layer, "block_sparse_moe", None)) if m), None)
        if hasattr(inside, "experts"):
            found[i] = inside
    return found


def router(block: nn.Module) -> nn.Module:
    """The router of such a module."""
    return block.gate if hasattr(block, "gate") else block.router  # pyright: ignore[reportReturnType]


class Renumbered(nn.Module):
    """A router over fewer experts, whose choices are given the dense model's numbers."""

    def __init__(self, small: nn.Module, kept: list[int]) -> None:
        super().__init__()
        self.small, self.kept = small, torch.tensor(kept)

    def forward(self, states: torch.Tensor) -> Any:
        logits, weights, chosen = self.small(states)
        return logits, weights, self.kept[chosen]
