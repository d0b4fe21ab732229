"""What a config tells of the tokens that its model takes."""

from __future__ import annotations

from typing import Any

from compress.errors import ModelError


def text_config(config: Any) -> Any:
    """The part of a config that tells of the tokens: of a model with several towers the text's, else all of it.

    Raises ModelError when the model has no tokens, or several kinds of them.
    """
    try:
        found = config.get_text_config()
    except ValueError as error:
        raise ModelError(f"{type(config).__name__}: {str(error).partition('. ')[0]}") from error
    if not getattr(found, "vocab_size", None):
        raise ModelError(f"{type(config).__name__} has no vocabulary, so that no tokens can be given to its model")
    return found


def longest(config: Any) -> int | None:
    """How many positions the model has, None where there is no end. Raises ModelError as `text_config` does."""
    return getattr(text_config(config), "max_position_embeddings", None)
