"""How like the dense model's embeddings those of a pruned one are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from compress.errors import InputError
from compress.inputs.batch import Batch
from compress.metrics.change import Sampled, similarity_change
from compress.metrics.kind import Figure, Metric, Quality, Scale

GROUPS = 64
"""Into which samples are parted at most, to leave out one after the other."""

MASK = "attention_mask"
"""Of a batch: which positions are no padding, `[batch, positions]`."""

COSINE, RANKS = "cosine", "ranks"


@dataclass(frozen=True)
class Similarity:
    """Over `samples` embeddings, each the mean over at most `length` positions.

    `cosine`: mean cosine of a sample's two embeddings, None when their widths differ. `lowest`: the worst sample's.
    `ranks`: Spearman correlation of the cosines between all pairs of samples, which is what search and clustering use;
    None with fewer than three samples.
    """

    cosine: float | None
    lowest: float | None
    ranks: float | None
    samples: int
    length: int


@dataclass(frozen=True)
class Embeddings:
    """Of samples, in order: float32 `[samples, hidden]` on the processor, the means over at most `length` positions."""

    values: Tensor
    length: int


class EmbeddingSimilarity(Metric[Embeddings]):
    """Cosine and rank correlation between the embeddings of two models."""

    name = "similarity"
    asks = {"output_hidden_states": True}  # noqa: RUF012
    relative = True

    def read(self, output: Any, batch: Batch) -> Embeddings:
        """The mean over the unmasked positions of the last hidden states; of an encoder-decoder, of its encoder's."""
        states = hidden_states(output)
        mask = batch.get(MASK)
        if mask is not None and mask.shape != states.shape[:2]:
            raise InputError(
                f"a {type(output).__name__} has {states.shape[1]} hidden states for {mask.shape[1]} positions, "
                "so that the padding cannot be told from the rest"
            )
        seen = torch.ones(states.shape[:2], device=states.device) if mask is None else mask.to(states.device)
        seen = seen[..., None].float()
        mean = (states.float() * seen).sum(1) / seen.sum(1).clamp(min=1)
        return Embeddings(mean.cpu(), states.shape[1])

    def merged(self, readings: Sequence[Embeddings]) -> Embeddings:
        """The embeddings of all samples."""
        return Embeddings(torch.cat([one.values for one in readings]), max(one.length for one in readings))

    def quality(self, model: Embeddings, dense: Embeddings | None = None) -> Quality:
        """How like the dense model's they are; nothing without those."""
        if dense is None:
            return Quality()
        found = compare(dense, model)
        errors = sampled(dense.values, model.values)
        titles = [
            (COSINE, "Embedding cosine to the dense model", f"{found.samples} samples", found.cosine),
            (RANKS, "Rank correlation of pairs", f"{found.samples} samples", found.ranks),
        ]
        figures = [
            Figure(name, title, over, value, 1.0, True, Scale.SIMILARITY, ranks=name == RANKS)
            for name, title, over, value in titles
            if value is not None
        ]
        changes = {name: similarity_change(value, found.samples) for name, value in errors.items()}
        return Quality(figures, {self.name: asdict(found)}, {}, changes, errors.get(RANKS))


class PairSimilarity(EmbeddingSimilarity):
    """Likewise for two embeddings of a sample, which `of` finds: `[samples, 2, width]`. Each has length one, and both
    together are the embedding, so that its cosine is the mean of theirs."""

    asks = {}  # noqa: RUF012

    def __init__(self, of: Callable[[Any], Tensor]) -> None:
        self._of = of

    def read(self, output: Any, batch: Batch) -> Embeddings:
        """Both embeddings of each sample, one behind the other."""
        pairs = functional.normalize(self._of(output).float(), dim=-1)
        return Embeddings(pairs.flatten(1).cpu(), pairs.shape[1])


def hidden_states(output: Any) -> Tensor:
    """The last hidden states of an output, `[batch, positions, hidden]`; of an encoder-decoder the encoder's.

    A map of features `[batch, hidden, height, width]` has a position for each place in it. Raises InputError where
    there is neither.
    """
    states = getattr(output, "encoder_last_hidden_state", None)
    if states is None:
        states = getattr(output, "last_hidden_state", None)
    if states is None and getattr(output, "hidden_states", None):
        states = output.hidden_states[-1]
    if states is not None and states.dim() == 4:
        states = states.flatten(2).transpose(1, 2)
    if states is None or states.dim() != 3:
        raise InputError(f"a {type(output).__name__} has no hidden state per position, so it has no embedding")
    return states


def compare(one: Embeddings, other: Embeddings) -> Similarity:
    """Similarity of two embeddings of the same samples; the widths may differ."""
    cosine = functional.cosine_similarity(one.values, other.values) if one.values.shape == other.values.shape else None
    return Similarity(
        cosine=cosine.mean().item() if cosine is not None else None,
        lowest=cosine.min().item() if cosine is not None else None,
        ranks=_spearman(_pairs(one.values), _pairs(other.values)) if len(one.values) > 2 else None,
        samples=len(one.values),
        length=max(one.length, other.length),
    )


def sampled(one: Tensor, other: Tensor) -> dict[str, Sampled]:
    """`cosine` and `ranks` of `compare` where they exist, with what they are without some of the samples.

    One sample is left out at a time, and of many a group, as each time all pairs are ranked anew.
    """
    found, samples = {}, np.arange(len(one))
    rest = [np.setdiff1d(samples, some) for some in np.array_split(samples, min(len(one), GROUPS))]
    if one.shape == other.shape and len(one) > 1:
        cosine = functional.cosine_similarity(one, other).double().numpy()
        found[COSINE] = Sampled(float(cosine.mean()), np.array([cosine[some].mean() for some in rest]))
    if len(one) > 3:
        ranks = [_spearman(_pairs(one[some]), _pairs(other[some])) for some in rest]
        found[RANKS] = Sampled(_spearman(_pairs(one), _pairs(other)), np.array(ranks))
    return found


def _pairs(embeddings: Tensor) -> Tensor:
    """Cosines of all pairs, `[samples × (samples − 1) / 2]`."""
    unit = functional.normalize(embeddings)
    row, column = torch.triu_indices(len(unit), len(unit), offset=1)
    return (unit @ unit.T)[row, column]


def _spearman(one: Tensor, other: Tensor) -> float:
    ranks = torch.stack([value.argsort().argsort().double() for value in (one, other)])
    return torch.corrcoef(ranks)[0, 1].item()
