"""Architectures that compute exactly the same function under other names and with other limits.

Each row was proved on random models: equal state dict names, logits equal to 1e-6 (tests/test_native.py repeats it).
A row applies when the configuration has every value in `needs` (a missing value counts as None).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, PretrainedConfig


@dataclass(frozen=True)
class Relative:
    """`source` configurations may be written as `target`; class names differ by these prefixes."""

    source: str
    target: str
    prefixes: tuple[str, str]
    needs: Mapping[str, tuple] = field(default_factory=dict)
    sets: Mapping[str, Any] = field(default_factory=dict)


NO_BIAS = {"attention_bias": (False, None), "mlp_bias": (False, None)}
NO_WINDOW = {"sliding_window": (None,)}
GRANITE = {"embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0}

RELATIVES = (
    Relative("llama", "mistral", ("Llama", "Mistral"), NO_BIAS, {"sliding_window": None}),
    Relative("llama", "granite", ("Llama", "Granite"), {}, GRANITE),
    Relative("mistral", "llama", ("Mistral", "Llama"), NO_WINDOW),
    Relative("mistral", "granite", ("Mistral", "Granite"), NO_WINDOW, GRANITE),
    # Qwen2 always has biases on q, k, v; the others have one on o as well, which is zero.
    Relative("qwen2", "llama", ("Qwen2", "Llama"), {}, {"attention_bias": True}),
    Relative("qwen2", "granite", ("Qwen2", "Granite"), {}, {**GRANITE, "attention_bias": True}),
)
LABELS = {"id2label", "label2id", "num_labels", "problem_type"}


def relatives(config: PretrainedConfig, cls: type) -> list[tuple[dict[str, Any], type]]:
    """Raw configurations and classes of the relatives that equal this model as it is."""
    found = []
    for row in RELATIVES:
        name = cls.__name__.replace(row.prefixes[0], row.prefixes[1], 1)
        if row.source != config.model_type or name == cls.__name__ or not hasattr(transformers, name):
            continue
        if any(getattr(config, key, None) not in allowed for key, allowed in row.needs.items()):
            continue
        if set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
            continue
        found.append((_rewrite(config, row, name), getattr(transformers, name)))
    return found


def _rewrite(config: PretrainedConfig, row: Relative, architecture: str) -> dict[str, Any]:
    target = CONFIG_MAPPING[row.target]
    known = {f.name for f in dataclasses.fields(target)} - {"transformers_version"}
    kept = {k: v for k, v in config.to_dict().items() if k in known or k in ("head_dim", *LABELS)}
    kept.pop("layer_types", None)  # stock loading would take a Mistral with layer_types for a Ministral
    result = {**kept, **row.sets, "model_type": row.target, "architectures": [architecture]}
    if row.target == "granite":
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        result["attention_multiplier"] = width**-0.5
    return {k: v for k, v in result.items() if v is not None or k in row.sets}
