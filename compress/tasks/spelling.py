"""Tokens that a model writes, read as words."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Spell = Callable[[Sequence[int]], list[Any]]

MARKS = string.punctuation + "“”‘’«»„…–—¿¡。、，！？"
"""What may stand around a word and is not said."""


def spelling(config: Any) -> tuple[str, Spell]:
    """What a list of tokens is read as, `word` or `token`, and how: as words by the tokenizer beside config.json, as
    tokens where there is none that runs without code of the checkpoint's. Negative numbers are left out; of words, case
    and the marks around them, as word error rates have it."""
    tokenizer = _tokenizer(config)
    if tokenizer is None:
        return "token", lambda ids: [one for one in ids if one >= 0]
    grouping = "group_tokens" in inspect.signature(tokenizer._decode).parameters
    options = {"group_tokens": False} if grouping else {}  # repeated tokens are one before they come here

    def words(ids: Sequence[int]) -> list[str]:
        text = tokenizer.decode([one for one in ids if one >= 0], skip_special_tokens=True, **options)
        return [word for one in text.lower().split() if (word := one.strip(MARKS))]

    return "word", words


def _tokenizer(config: Any) -> Any | None:
    folder = getattr(config, "name_or_path", "")
    if not folder or not (Path(folder) / "tokenizer_config.json").is_file():
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError):
        return None
