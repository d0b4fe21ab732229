"""Where tokens go in and come out of a model."""

from __future__ import annotations

from typing import Literal

from torch import nn


def embeddings(model: nn.Module, end: Literal["input", "output"]) -> nn.Module | None:
    """The token embeddings at one end of a model, None where it has none."""
    try:
        return getattr(model, f"get_{end}_embeddings", lambda: None)()
    except NotImplementedError:  # how transformers' models without tokens answer
        return None
