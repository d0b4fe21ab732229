"""The same texts in the tokens of another tokenizer, so that two models that cut text differently compare.

A sample's loss is then of the very same bytes. It counts as many tokens as the first tokenizer has for them, so that
both models' losses per token, and their perplexities, have one measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from compress.data.tokens import around, load_tokenizer
from compress.errors import InputError

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint

IGNORED = -100
"""In place of a token that is not predicted."""

FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt", "vocab.json", "merges.txt")


class Text(NamedTuple):
    """Of one sample: its `ids` in the other tokenizer's numbers, which of them are predicted, and for how many `tokens`
    of the first tokenizer and `bytes` of text these stand."""

    ids: list[int]
    predicted: list[bool]
    tokens: int
    bytes: int


class Reader:
    """Rows of tokens of the tokenizer `own` as `other` has their texts; both are of transformers."""

    def __init__(self, own: Any, other: Any) -> None:
        self._own, self._other = own, other
        self._before, self._after = (list(side) for side in around(own))
        self._around = around(other)
        model: Any = getattr(getattr(own, "backend_tokenizer", None), "model", None)
        self._inside: str = getattr(model, "continuing_subword_prefix", None) or ""

    def row(self, row: Sequence[int], *, whole: bool = False) -> Text:
        """A row of as many tokens as `token_rows` gives. Unless `whole`, its first token is predicted by nothing, and
        neither is what stands for the same text."""
        core = list(row)[len(self._before) : len(row) - len(self._after)]
        text = self._text(core)
        free = whole or bool(self._before)
        first = "" if free else self._text(core[:1])
        end = len(first) if text.startswith(first) else 0
        made = self._other(text, add_special_tokens=False, verbose=False).encodings[0]
        before, after = self._around
        ids = [*before, *made.ids, *after]
        starts = [start >= end for start, _ in made.offsets]
        predicted = [*([whole] * len(before)), *starts, *([True] * len(after))]
        return Text(ids, predicted, len(row) - (not whole), len(text.encode()) - len(text[:end].encode()))

    def token(self, number: int) -> int:
        """One token's other number. Raises InputError where it has none."""
        token = self._own.convert_ids_to_tokens(number)
        found = self._other.get_vocab().get(token)
        if found is None:
            raise InputError(f"the model to compare with has no token {token!r}, which texts begin with")
        return found

    def _text(self, ids: list[int]) -> str:
        """A row may begin inside a word, which is a word of its own then."""
        text = self._own.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text.removeprefix(self._inside)


def reader(own: Checkpoint, other: Checkpoint) -> Reader | None:
    """From one checkpoint's tokens to another's; None where their tokenizers are the same, or one has none.

    Raises InputError for a tokenizer that does not say which characters a token is of.
    """
    if _contents(own) == _contents(other):
        return None
    one, two = load_tokenizer(own), load_tokenizer(other)
    if one is None or two is None or one.get_vocab() == two.get_vocab():
        return None
    if not getattr(two, "is_fast", False):
        raise InputError(f"{other.folder}: cuts text otherwise than {own.folder}, and by code that tells no places")
    return Reader(one, two)


def padded(rows: Sequence[Sequence[int]], filling: int) -> tuple[Tensor, Tensor]:
    """Rows as int64 `[rows, longest]`, and 1 where they are no filling."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *([filling] * (longest - len(row)))] for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


def labels(texts: Sequence[Text]) -> Tensor:
    """The predicted tokens of each, IGNORED for the others."""
    rows = [[one if seen else IGNORED for one, seen in zip(text.ids, text.predicted, strict=True)] for text in texts]
    return padded(rows, IGNORED)[0]


def _contents(checkpoint: Checkpoint) -> dict[str, bytes]:
    files = (Path(file) for file in checkpoint.side_files)
    return {file.name: file.read_bytes() for file in files if file.name in FILES and file.parent == checkpoint.folder}
