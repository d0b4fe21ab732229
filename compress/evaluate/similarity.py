"""How like the dense model's sentence embeddings those of the pruned one are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.errors import InputError


@dataclass(frozen=True)
class Similarity:
    """Over `samples` texts of at most `length` tokens.

    `cosine`: mean cosine of a text's two embeddings, None when their widths differ. `lowest`: the worst text's.
    `ranks`: Spearman correlation of the cosines between all pairs of texts, which is what search and clustering use;
    None with fewer than three texts.
    """

    cosine: float | None
    lowest: float | None
    ranks: float | None
    samples: int
    length: int

    def __str__(self) -> str:
        parts = [("cosine", self.cosine), ("ranks of pairs", self.ranks)]
        return ", ".join(f"{name} {value:.4f}" for name, value in parts if value is not None)


@torch.no_grad()
def embed(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> tuple[Tensor, int]:
    """Mean over the unmasked tokens of the last hidden state, float32 `[samples, hidden]`, and the longest length.

    Encoder-decoder models are asked for their encoder's. Raises InputError when the model gives no hidden states
    `[batch, length, hidden]`.
    """
    encoder = model.get_encoder() if getattr(getattr(model, "config", None), "is_encoder_decoder", False) else model  # pyright: ignore[reportCallIssue]
    device, found, length = next(model.parameters()).device, [], 0
    for batch in batches:
        given = {name: batch[name].to(device) for name in ("input_ids", "attention_mask") if name in batch}
        output = encoder(**given, output_hidden_states=True)
        state = getattr(output, "last_hidden_state", None)
        if state is None and getattr(output, "hidden_states", None):
            state = output.hidden_states[-1]
        if state is None or state.shape[:2] != given["input_ids"].shape:
            raise InputError(f"{type(model).__name__} gives no hidden state per token, so it has no embedding")
        mask = given.get("attention_mask", torch.ones_like(given["input_ids"]))[..., None].float()
        found.append(((state.float() * mask).sum(1) / mask.sum(1).clamp(min=1)).cpu())
        length = max(length, state.shape[1])
    if not found:
        raise InputError("no text to embed")
    return torch.cat(found), length


def similarity(dense: nn.Module, pruned: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> Similarity:
    """Compare both models' embeddings of the same `batches`: `input_ids` `[batch, length]` and `attention_mask`."""
    batches = list(batches)
    (one, length), (other, _) = embed(dense, batches), embed(pruned, batches)
    return compare(one, other, length)


def compare(one: Tensor, other: Tensor, length: int) -> Similarity:
    """Similarity of two embeddings of the same texts, `[samples, hidden]` each; the widths may differ."""
    cosine = functional.cosine_similarity(one, other) if one.shape == other.shape else None
    return Similarity(
        cosine=cosine.mean().item() if cosine is not None else None,
        lowest=cosine.min().item() if cosine is not None else None,
        ranks=_spearman(_pairs(one), _pairs(other)) if len(one) > 2 else None,
        samples=len(one),
        length=length,
    )


def _pairs(embeddings: Tensor) -> Tensor:
    """Cosines of all pairs, `[samples × (samples − 1) / 2]`."""
    unit = functional.normalize(embeddings)
    row, column = torch.triu_indices(len(unit), len(unit), offset=1)
    return (unit @ unit.T)[row, column]


def _spearman(one: Tensor, other: Tensor) -> float:
    ranks = torch.stack([value.argsort().argsort().double() for value in (one, other)])
    return torch.corrcoef(ranks)[0, 1].item()
