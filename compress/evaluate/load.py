"""A checkpoint as a model that runs, and the held-out text it is measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compress.calibrate.data import batches, load_tokenizer
from compress.checkpoint.model import load_config, model_class
from compress.recipe.part import Part
from compress.recipe.schema import Calibrate

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint

BATCH = 4


def load_model(checkpoint: Checkpoint, device: str = "cpu") -> nn.Module:
    """The whole model as stock transformers load it: float32 on a processor, as stored on an accelerator."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = load_config(checkpoint)
    cls: Any = model_class(config, checkpoint)
    dtype = torch.float32 if device == "cpu" else "auto"
    return cls.from_pretrained(checkpoint.folder, config=config, dtype=dtype).to(device).eval()


def held_out(
    checkpoint: Checkpoint, *, data: Part | str | None = None, length: int, samples: int, seed: int = 0
) -> list[dict[str, Tensor]]:
    """Batches of `input_ids` `[4, length]` (with labels for masked models), by default of what `docs` keeps back.

    The length is cut to what the model takes. A model without a tokenizer gets random tokens, which have a latency but
    no meaning. Raises InputError when the text is too short or the tokenizer belongs to another model.
    """
    config, tokenizer = load_config(checkpoint), load_tokenizer(checkpoint)
    limits = [getattr(config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    length = int(min(limit for limit in [*limits, length] if limit))
    if tokenizer is None:
        data = Part("random")
    asked = Calibrate(data=data or Part("docs", {"split": "test"}), samples=samples, length=length, batch=BATCH)
    rows, _ = batches(asked, tokenizer, config, seed)
    return rows
