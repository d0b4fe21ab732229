"""What a language model writes: the same beginnings of texts, continued by both models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = ("The capital of France is", "The opposite of hot is", "A list in Python")
TOKENS = 24
SECONDS = 2.0
"""What one text may take where time is limited; a slow model writes fewer tokens."""


@dataclass(frozen=True)
class Continuation:
    """How the dense model (`before`) and the pruned one (`after`) go on from `prompt`."""

    prompt: str
    before: str
    after: str


def writes(model: nn.Module) -> bool:
    """Whether the model continues texts: decoders do, encoder-decoders answer with a text of their own."""
    able: Any = getattr(model, "can_generate", None)
    return able is not None and able() and not getattr(model.config, "is_encoder_decoder", False)


@torch.no_grad()
def continued(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str] = PROMPTS,
    *,
    tokens: int = TOKENS,
    seconds: float | None = None,
) -> list[str]:
    """What `model` writes behind each of the `prompts`: always the most probable token, at most so many `tokens`, for
    at most so many `seconds` a text. A prompt with tokens that the model has not is continued by nothing."""
    from transformers import GenerationConfig

    generator: Any = model
    known = getattr(generator.generation_config, "eos_token_id", None)
    asked = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, max_time=seconds, eos_token_id=known, pad_token_id=_padding(known)
    )
    vocabulary = generator.get_input_embeddings().num_embeddings
    device, texts = next(model.parameters()).device, []
    for prompt in prompts:
        ids = torch.tensor([tokenizer.encode(prompt)], device=device)
        if not ids.numel() or int(ids.max()) >= vocabulary:
            texts.append("")
            continue
        written = generator.generate(ids, attention_mask=torch.ones_like(ids), generation_config=asked)
        texts.append(str(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)))
    return texts


def _padding(end: int | list[int] | None) -> int | None:
    """Nothing is padded, but without a token for it transformers warns."""
    return end[0] if isinstance(end, list) else end
