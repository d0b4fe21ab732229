"""How often a classifier is right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compress.errors import InputError
from compress.files.ordinary import check_ordinary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CURE = 'a line is {"text": …, "label": …}'


@dataclass(frozen=True)
class Accuracy:
    """Share of `samples` texts whose most probable class is their label (top-1)."""

    value: float
    samples: int

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % of {self.samples}"


def read_labelled(file: Path, names: dict[int, str], most: int | None = None) -> list[tuple[str, int]]:
    """(text, class) of each line of a .jsonl, `most` at most; a label is a class's number or its name in `names`.

    Raises InputError with the line that cannot be used.
    """
    numbers: dict[Any, int] = {name: number for number, name in names.items()} | {number: number for number in names}
    found: list[tuple[str, int]] = []
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


@torch.inference_mode()
def accuracy(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    labelled: Sequence[tuple[str, int]],
    *,
    length: int = 256,
    batch: int = 8,
) -> Accuracy:
    """Top-1 accuracy of a sequence classifier on (text, class); texts are cut to `length` tokens."""
    device, right = next(model.parameters()).device, 0
    for start in range(0, len(labelled), batch):
        texts, classes = zip(*labelled[start : start + batch], strict=True)
        given = tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        logits = model(**given.to(device)).logits
        right += int((logits.argmax(-1).cpu() == torch.tensor(classes)).sum())
    return Accuracy(right / len(labelled), len(labelled))
