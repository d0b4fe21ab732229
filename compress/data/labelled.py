"""Texts with the class that each belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compress.errors import InputError
from compress.files.ordinary import check_ordinary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CURE = 'a line is {"text": …, "label": …}'
BATCH = 8


def labelled_batches(
    file: Path | None, tokenizer: PreTrainedTokenizerBase, names: Mapping[int, str], *, samples: int, length: int
) -> list[dict[str, Tensor]]:
    """The first `samples` lines of a .jsonl, cut to `length` tokens and padded.

    A batch is what `tokenizer` gives, `[batch, length]`, and `labels`, int64 `[batch]`. Raises InputError as
    `read_labelled` does.
    """
    if file is None:
        raise InputError(f"--data: a classifier is measured on a .jsonl file; {CURE}")
    found = read_labelled(file, names, samples)
    batches = []
    for start in range(0, len(found), BATCH):
        texts, classes = zip(*found[start : start + BATCH], strict=True)
        given = tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        batches.append({**given, "labels": torch.tensor(classes)})
    return batches


def read_labelled(file: Path, names: Mapping[int, str], most: int | None = None) -> Sequence[tuple[str, int]]:
    """(text, class) of each line of a .jsonl, `most` at most; a label is a class's number or its name in `names`.

    Raises InputError with the line that cannot be used.
    """
    numbers: dict[Any, int] = {name: number for number, name in names.items()} | {number: number for number in names}
    found: list[tuple[str, int]] = []
    if file.suffix != ".jsonl":
        raise InputError(f"{file}: a classifier is measured on a .jsonl file; {CURE}")
    check_ordinary(file)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as labelled text ({error}); {CURE}") from None
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text, label = row["text"], row["label"]
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{file}:{place}: no text and label; {CURE}") from None
        if not isinstance(text, str) or not isinstance(label, str | int) or label not in numbers:
            known = ", ".join(map(str, names.values()))
            raise InputError(f"{file}:{place}: label {label!r} is no class of the model (it has {known}); {CURE}")
        found.append((text, numbers[label]))
    if not found:
        raise InputError(f"{file}: has no line; {CURE}")
    return found[:most]
