"""A batch: what a forward is given, and a loss besides, by name; the first dimension of every tensor is the sample."""

from __future__ import annotations

from torch import Tensor

Batch = dict[str, Tensor]

LABELS = "labels"
"""What a loss is told of a batch, and the model's forward is not given."""

TOKEN_WEIGHT = "token_weight"
"""How much each token counts in what is gathered and in the loss, `[samples, tokens]`; no forward is given it."""

COUNTED, BYTES = "counted_tokens", "text_bytes"
"""Of a text that another tokenizer cut before: as how many tokens a sample counts, and how many bytes of it are
predicted, both `[samples]`; no forward is given them."""


END_TO_END = "[]"
"""At the end of a name: a forward takes what all samples have, `[samples, n, …]`, laid end to end as `[samples · n, …]`
under the name without it."""

SIDE_BY_SIDE = "[-]"
"""Likewise: a forward takes `[samples, …, n]` laid side by side, as `[1, …, samples · n]`."""


def rows(batch: Batch) -> int:
    """How many samples there are."""
    return len(next(iter(batch.values())))


def first(batch: Batch, count: int) -> Batch:
    """The first `count` samples."""
    return {name: value[:count] for name, value in batch.items()}


def leading(batches: list[Batch], count: int | None) -> list[Batch]:
    """The first `count` samples of all, in batches as they were; all of them where that is None."""
    found: list[Batch] = []
    for batch in batches:
        left = rows(batch) if count is None else count - sum(rows(one) for one in found)
        if left <= 0:
            break
        found.append(batch if left >= rows(batch) else first(batch, left))
    return found


def samples(batch: Batch) -> list[Batch]:
    """Each sample as a batch of its own."""
    return [{name: value[i : i + 1] for name, value in batch.items()} for i in range(rows(batch))]


def given(batch: Batch) -> Batch:
    """What of a batch the model's forward takes."""
    told = (LABELS, TOKEN_WEIGHT, COUNTED, BYTES)
    return dict(_laid(name, value) for name, value in batch.items() if name not in told)


def plain(name: str) -> str:
    """What a forward calls it."""
    return name.removesuffix(END_TO_END).removesuffix(SIDE_BY_SIDE)


def _laid(name: str, value: Tensor) -> tuple[str, Tensor]:
    if name.endswith(END_TO_END):
        value = value.flatten(0, 1)
    elif name.endswith(SIDE_BY_SIDE):
        value = value.movedim(0, -2).flatten(-2)[None]
    return plain(name), value
