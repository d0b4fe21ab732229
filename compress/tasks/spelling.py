"""Tokens that a model writes, read as words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Spell = Callable[[Sequence[int]], list[Any]]


def spelling(config: Any) -> tuple[str, Spell]:
    """What a list of tokens is read as, `word` or `token`, and how: as words by the tokenizer beside config.json, as
    tokens where there is none that runs without code of the checkpoint's. Negative numbers are left out."""
    tokenizer = _tokenizer(config)
    if tokenizer is None:
        return "token", lambda ids: [one for one in ids if one >= 0]
    grouping = "group_tokens" in inspect.signature(tokenizer._decode).parameters
    options = {"group_tokens": False} if grouping else {}  # repeated tokens are one before they come here

    def words(ids: Sequence[int]) -> list[str]:
        return tokenizer.decode([one for one in ids if one >= 0], skip_special_tokens=True, **options).lower().split()

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
