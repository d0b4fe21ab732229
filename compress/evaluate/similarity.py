"""How like the dense model's sentence embeddings those of the pruned one are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.console import track
from compress.errors import InputError
from compress.evaluate.change import Sampled

GROUPS = 64
"""Into which texts are parted at most, to leave out one after the other."""


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
    for batch in track(batches, "embedding"):
        given = {name: batch[name].to(device) for name in ("input_ids", "attention_mask") if name in batch}
        output = encoder(**given, output_hidden_states=True)
        found.append(pooled(model, given, output))
        length = max(length, given["input_ids"].shape[1])
    if not found:
        raise InputError("no text to embed")
    return torch.cat(found), length


def pooled(model: nn.Module, batch: Mapping[str, Tensor], output: Any) -> Tensor:
    """Mean over the unmasked tokens of the last hidden state in `output`, float32 `[samples, hidden]`.

    Raises InputError when there is none `[batch, length, hidden]`.
    """
    state = getattr(output, "last_hidden_state", None)
    if state is None and getattr(output, "hidden_states", None):
        state = output.hidden_states[-1]
    if state is None or state.shape[:2] != batch["input_ids"].shape:
        raise InputError(f"{type(model).__name__} gives no hidden state per token, so it has no embedding")
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))[..., None].float()
    return ((state.float() * mask).sum(1) / mask.sum(1).clamp(min=1)).cpu()


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


def sampled(one: Tensor, other: Tensor) -> dict[str, Sampled]:
    """`cosine` and `ranks` of `compare` where they exist, with what they are without some of the texts.

    One text is left out at a time, and of many a group, as each time all pairs are ranked anew.
    """
    found, texts = {}, np.arange(len(one))
    rest = [np.setdiff1d(texts, some) for some in np.array_split(texts, min(len(one), GROUPS))]
    if one.shape == other.shape and len(one) > 1:
        cosine = functional.cosine_similarity(one, other).double().numpy()
        found["cosine"] = Sampled(float(cosine.mean()), np.array([cosine[some].mean() for some in rest]))
    if len(one) > 3:
        ranks = [_spearman(_pairs(one[some]), _pairs(other[some])) for some in rest]
        found["ranks"] = Sampled(_spearman(_pairs(one), _pairs(other)), np.array(ranks))
    return found


def _pairs(embeddings: Tensor) -> Tensor:
    """Cosines of all pairs, `[samples × (samples − 1) / 2]`."""
    unit = functional.normalize(embeddings)
    row, column = torch.triu_indices(len(unit), len(unit), offset=1)
    return (unit @ unit.T)[row, column]


def _spearman(one: Tensor, other: Tensor) -> float:
    ranks = torch.stack([value.argsort().argsort().double() for value in (one, other)])
    return torch.corrcoef(ranks)[0, 1].item()
