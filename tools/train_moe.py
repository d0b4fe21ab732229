"""Trains, once, a small mixture-of-experts model on the `docs` text, as `train_llama.py` does, and prints its folder.

python tools/train_moe.py mixtral      # prints ~/.cache/compress/models/mixtral-docs
python tools/train_moe.py qwen3-moe
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from train_llama import Settings, folder, make, ready, shape
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedModel, Qwen3MoeConfig, Qwen3MoeForCausalLM


@dataclass(frozen=True)
class MoeSettings(Settings):
    """`channels` are those of one expert; each token visits `chosen` of the `experts`."""

    hidden: int = 256
    heads: int = 4
    groups: int = 2
    channels: int = 256
    experts: int = 8
    chosen: int = 2
    balance: float = 0.02
    steps: int = 400
    seconds: float = 150.0


def mixtral(settings: MoeSettings) -> PreTrainedModel:
    """Few large experts."""
    return MixtralForCausalLM(
        MixtralConfig(
            **shape(settings),
            intermediate_size=settings.channels,
            num_local_experts=settings.experts,
            num_experts_per_tok=settings.chosen,
            router_aux_loss_coef=settings.balance,
            output_router_logits=True,
        )
    )


def qwen3_moe(settings: MoeSettings) -> PreTrainedModel:
    """Many small experts."""
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            **shape(settings),
            moe_intermediate_size=settings.channels,
            intermediate_size=settings.channels * settings.chosen,
            num_experts=settings.experts,
            num_experts_per_tok=settings.chosen,
            norm_topk_prob=True,
            router_aux_loss_coef=settings.balance,
            output_router_logits=True,
        )
    )


MODELS: dict[str, tuple[MoeSettings, Callable[..., PreTrainedModel]]] = {
    "mixtral": (MoeSettings(), mixtral),
    "qwen3-moe": (MoeSettings(channels=96, experts=16, chosen=4), qwen3_moe),
}


if __name__ == "__main__":
    architecture = sys.argv[1] if len(sys.argv) > 1 else "mixtral"
    settings, build = MODELS[architecture]
    name = f"{architecture}-docs"
    if not ready(settings, name):
        print(f"training a small {architecture} once …", file=sys.stderr, flush=True)
        make(settings, name, build)
    print(folder(name))
