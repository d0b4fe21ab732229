"""Several questions behind one picture: it is read once for all of them, and none sees another.

Each question's positions go on where the picture's end, so that the rows are what a single question's would be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from .assembly import reply
from .questions import Question


@dataclass(frozen=True)
class Packed:
    """Rows of text behind the start token and the picture's tokens.

    `tokens` `[rows, length]`; `positions` `[rows, whole]` and `mask` `[rows, 1, whole, whole]`, True where a token sees
    another, with the start and the picture; `targets` `[rows, length]` are -100 where no answer comes next.
    """

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    targets: Tensor


def pack(asked: Sequence[Sequence[Question]], tokenizer: Any, image: int) -> Packed:
    """A row for each picture of `image` tokens with the questions about it."""
    before = 1 + image
    rows = [_row(questions, tokenizer, before) for questions in asked]
    length = max(len(row[0]) for row in rows)
    tokens, part, positions, targets = (
        torch.tensor([row[i] + [fill] * (length - len(row[i])) for row in rows])
        for i, fill in enumerate((0, -1, 0, -100))
    )
    part = torch.cat([torch.zeros(len(rows), before, dtype=torch.long), part], 1)
    same = part[:, None] == part[:, :, None]
    mask = (same | (part == 0)[:, None]).tril()[:, None]
    start = torch.arange(before).expand(len(rows), -1)
    return Packed(tokens, torch.cat([start, positions], 1), mask, targets)


def _row(questions: Sequence[Question], tokenizer: Any, before: int) -> list[list[int]]:
    """Tokens, the number of each one's question from 1 on, positions, targets."""
    row: list[list[int]] = [[], [], [], []]
    for number, question in enumerate(questions, start=1):
        words: list[int] = tokenizer(question.text, add_special_tokens=False).input_ids
        right = reply(tokenizer, question.answer)
        own = words + right[:-1]
        row[0] += own
        row[1] += [number] * len(own)
        row[2] += range(before, before + len(own))
        row[3] += [-100] * (len(words) - 1) + right
    return row


def answers(
    model: LlavaForConditionalGeneration, start: int, features: Tensor, packed: Packed
) -> tuple[Tensor, Tensor]:
    """Logits `[answer tokens, vocabulary]` and the right tokens, of `features` `[rows, image tokens, width]` that the
    tower gave; `start` is the first token."""
    body = model.model
    embed = body.language_model.embed_tokens
    image = body.multi_modal_projector(features.float())
    first = embed(torch.full((len(features), 1), start))
    hidden = body.language_model(
        inputs_embeds=torch.cat([first, image.to(first.dtype), embed(packed.tokens)], 1),
        attention_mask=packed.mask,
        position_ids=packed.positions,
        use_cache=False,
    ).last_hidden_state[:, 1 + image.shape[1] :]
    chosen = packed.targets >= 0
    return model.lm_head(hidden[chosen]), packed.targets[chosen]
