"""Perplexity: of the tokens that a model is to predict, whatever kind of model it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional

from compress.errors import InputError
from compress.inputs.batch import BYTES, COUNTED, Batch
from compress.metrics.change import Change, Sampled, loss_change, ratio_change
from compress.metrics.kind import Figure, Metric, Quality

IGNORED = -100
"""In place of a token that is not predicted."""

BITS = "bits_per_byte"
"""The loss of the same texts over their bytes, which no tokenizer changes."""

Predicted = Callable[[Tensor, Batch], tuple[Tensor, Tensor]]
"""Logits `[batch, length, vocabulary]` and their batch → the logits `[batch, predicted, vocabulary]` and tokens
`[batch, predicted]` that belong together, IGNORED where there is none; raises InputError for other logits."""


class Stretch(NamedTuple):
    """Positions from `first` on (1 is the first that is predicted) up to the next stretch, and their mean `loss`."""

    first: int
    loss: float


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean loss over `tokens` predicted tokens, in `samples` sequences of `length`.

    The length belongs to the number: the same model on the same text has more than twice the perplexity at 128 tokens
    that it has at 2048, so two perplexities compare only at equal length. `by_position`: the mean loss in nats by how
    far into the sequence a token stands, from the first predicted one on, in stretches each twice as long as the last.
    """

    value: float
    length: int
    tokens: int
    samples: int
    by_position: tuple[Stretch, ...] = ()

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.samples} sequences of {self.length} tokens)"


@dataclass(frozen=True)
class Losses:
    """Of every sequence, in order: the loss summed over its predicted tokens, in nats, and how many these are.

    `positions` `[2, places]`: the same two, of all sequences together, at each place where a token may be predicted.
    Where another model's tokenizer cut the text first, `tokens` are as many as it has, `bytes` those of each sequence's
    text that is predicted, and nothing is known of positions.
    """

    sums: list[float]
    tokens: list[int]
    length: int
    positions: np.ndarray
    bytes: list[int] = field(default_factory=list)

    def bits(self, sizes: Sequence[int]) -> Sampled:
        """Bits a byte of sequences whose texts have `sizes` bytes, and the same without each of the sequences."""
        bits, count = np.array(self.sums) / math.log(2), np.array(sizes)
        return Sampled(float(bits.sum() / count.sum()), (bits.sum() - bits) / np.maximum(count.sum() - count, 1))

    @property
    def mean(self) -> Sampled:
        """The mean loss of a token, and the same without each of the sequences."""
        sums, tokens = np.array(self.sums), np.array(self.tokens)
        if not tokens.sum():
            raise InputError("no token to predict: the sequences must have at least two tokens")
        rest = np.maximum(tokens.sum() - tokens, 1)
        return Sampled(float(sums.sum() / tokens.sum()), (sums.sum() - sums) / rest)

    @property
    def perplexity(self) -> Perplexity:
        """Raises InputError when there is no token to predict."""
        value = math.exp(min(self.mean.value, 700.0))
        return Perplexity(value, self.length, sum(self.tokens), len(self.sums), tuple(self._stretches()))

    def _stretches(self) -> Iterator[Stretch]:
        """Those in which a token is predicted."""
        first, places = 1, self.positions.shape[1]
        while first <= places:
            loss, tokens = self.positions[:, first - 1 : 2 * first - 1].sum(1)
            if tokens:
                yield Stretch(first, float(loss / tokens))
            first *= 2


class TokenLoss(Metric[Losses]):
    """Perplexity of the tokens that `predicted` finds; `length` tells how many tokens the sequences of a batch have."""

    name = "perplexity"

    def __init__(self, predicted: Predicted, length: Callable[[Batch], int]) -> None:
        self._predicted, self._length = predicted, length

    def read(self, output: Any, batch: Batch) -> Losses:
        """Losses of a batch, taken in float32 one sequence at a time, so that the logits are never copied whole."""
        logits = getattr(output, "logits", None)
        if logits is None:
            raise InputError(f"a {type(output).__name__} has no logits, so it has no perplexity")
        rows, targets = self._predicted(logits, batch)
        found = Losses([], [], self._length(batch), np.zeros((2, targets.shape[1])))
        found.bytes.extend(batch[BYTES].tolist() if BYTES in batch else ())
        found.tokens.extend(batch[COUNTED].tolist() if COUNTED in batch else ())
        for row, target in zip(rows, targets, strict=True):
            counted = target != IGNORED
            losses = functional.cross_entropy(row[counted].float(), target[counted], reduction="none")
            found.sums.append(losses.sum().item())
            if COUNTED in batch:
                continue
            found.tokens.append(int(counted.sum()))
            found.positions[:, counted.cpu().numpy()] += np.stack([losses.cpu().numpy(), np.ones(len(losses))])
        return found

    def merged(self, readings: Sequence[Losses]) -> Losses:
        """The losses of all sequences."""
        return Losses(
            [value for one in readings for value in one.sums],
            [count for one in readings for count in one.tokens],
            max(one.length for one in readings),
            _added([one.positions for one in readings]),
            [size for one in readings for size in one.bytes],
        )

    def quality(self, model: Losses, dense: Losses | None = None) -> Quality:
        """Perplexity, and its ratio to the dense model's where both were asked for the same tokens.

        Where these models cut text differently, it is of the tokens of the one whose tokenizer made the samples, with
        the bits a byte beside it; of masked tokens, of which they have none in common, each model's is of its own.
        """
        own, other = model.perplexity, dense.perplexity if dense is not None else None
        same = dense is not None and dense.tokens == model.tokens
        whose = ""
        if dense is not None and model.bytes != dense.bytes:
            whose = " of the dense model" if model.bytes else " of this model"
        elif dense is not None and not same:
            whose = ", each model's own"
        length = dense.length if dense is not None and model.bytes else own.length
        over = f"{own.samples} × {length} tokens{whose}"
        figures = [Figure(self.name, "Perplexity", over, own.value, other.value if other else None, False)]
        records: list[dict[str, Any]] = [{self.name: asdict(own)}, {self.name: asdict(other)} if other else {}]
        changes: dict[str, Change] = {}
        if dense is not None and same:
            changes[self.name] = loss_change(dense.mean, model.mean)
        if dense is not None and (sizes := model.bytes or dense.bytes):
            bits, beside = model.bits(sizes), dense.bits(sizes)
            text = f"{own.samples} texts of {sum(sizes):,} bytes"
            figures.append(Figure(BITS, "Bits a byte", text, bits.value, beside.value, False, ranks=False))
            for record, value in zip(records, (bits.value, beside.value), strict=True):
                record[BITS] = {"value": value, "bytes": sum(sizes)}
            if (change := ratio_change(beside, bits)) is not None:
                changes[BITS] = change
        return Quality(figures, records[0], records[1], changes, model.mean)


def _added(several: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of arrays `[2, places]` of several lengths, as long as the longest."""
    total = np.zeros((2, max(one.shape[1] for one in several)))
    for one in several:
        total[:, : one.shape[1]] += one
    return total
