"""The dense and the pruned model side by side: perplexity or likeness of embeddings, and latency."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.calibrate.data import batches, load_tokenizer
from compress.checkpoint.model import load_config, model_class
from compress.checkpoint.open import Checkpoint, open_checkpoint
from compress.console import task
from compress.errors import InputError
from compress.evaluate.latency import Latency, latency
from compress.evaluate.perplexity import Perplexity, perplexity
from compress.evaluate.similarity import Similarity, similarity
from compress.recipe.part import Part
from compress.recipe.schema import Calibrate, Recipe

LARGEST = 2_000_000_000
"""Bytes of a checkpoint up to which both models are loaded whole."""

SAMPLES, LENGTH, BATCH = 16, 256, 4


@dataclass(frozen=True)
class Evaluation:
    """What was measured; `notes` say what was not, and why."""

    latency_before: Latency | None = None
    latency_after: Latency | None = None
    perplexity_before: Perplexity | None = None
    perplexity_after: Perplexity | None = None
    similarity: Similarity | None = None
    notes: list[str] = field(default_factory=list)


def evaluate(dense: Checkpoint, folder: Path, recipe: Recipe, device: str) -> Evaluation:
    """Measure both models in float32 (half precision on an accelerator) on text that calibration does not see.

    The text is the `docs` source's split `test`; a model without a tokenizer has its latency measured only, on random
    tokens. Checkpoints above 2 GB are not loaded.
    """
    if dense.bytes > LARGEST:
        return Evaluation(notes=[f"not evaluated: checkpoints above {LARGEST / 1e9:.0f} GB are not loaded whole"])
    config, tokenizer = load_config(dense), load_tokenizer(dense)
    limits = [getattr(config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    length = int(min(limit for limit in [*limits, LENGTH] if limit))
    data = Part("random") if tokenizer is None else Part("docs", {"split": "test"})
    asked = Calibrate(data=data, samples=SAMPLES, length=length, batch=BATCH)
    with task("evaluating", 3) as advance:
        try:
            rows, _ = batches(asked, tokenizer, config, recipe.seed)
        except InputError as error:
            return Evaluation(notes=[f"not evaluated: {error}"])
        models = [_loaded(dense, device), _loaded(open_checkpoint(folder, trust_remote_code=True), device)]
        advance()
        causal = any(word in type(models[0]).__name__ for word in ("CausalLM", "LMHead", "MaskedLM", "Conditional"))
        found: dict[str, Any] = {}
        if tokenizer is None:
            found["notes"] = ["quality not evaluated: the model has no tokenizer"]
        elif causal:
            found["perplexity_before"], found["perplexity_after"] = (perplexity(model, rows) for model in models)
        else:
            found["similarity"] = similarity(models[0], models[1], rows)
        advance()
        one = {name: value[:1] for name, value in rows[0].items()}
        found["latency_before"], found["latency_after"] = _in_turn(models, one)
        advance()
    return Evaluation(**found)


def _in_turn(models: list[nn.Module], batch: dict[str, Any]) -> list[Latency]:
    """The better of two medians each, taken in turn, so that both meet the same other load of the machine."""
    rounds = [[latency(model, batch, repeats=5) for model in models] for _ in range(2)]
    return [min(both, key=lambda found: found.seconds) for both in zip(*rounds, strict=True)]


def _loaded(checkpoint: Checkpoint, device: str) -> nn.Module:
    """As stock transformers load it."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = load_config(checkpoint)
    cls: Any = model_class(config, checkpoint)
    dtype = torch.float32 if device == "cpu" else "auto"
    model = cls.from_pretrained(checkpoint.folder, config=config, dtype=dtype)
    return model.to(device).eval()
