"""A checkpoint as a model that runs, and the held-out text it is measured on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from compress.data.batches import batches, load_tokenizer
from compress.errors import InputError, ModelError
from compress.model.build import load_config, model_class, text_config
from compress.model.weights import Weights
from compress.recipe.part import Data, Part
from compress.recipe.schema import Calibrate
from compress.runtime import attach

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint

BATCH = 4
OTHER = Part("manuals")
"""What is measured on: prose of another kind than `docs`, which recipes calibrate on."""

KEPT_BACK = Part("docs", {"split": "test"})
"""What no calibration on `docs` sees."""

PREDICTS = ("CausalLM", "LMHead", "MaskedLM", "Conditional")


def predicts(model: nn.Module) -> bool:
    """Whether the model predicts tokens, so that its quality is a perplexity."""
    return any(word in type(model).__name__ for word in PREDICTS)


def apart_from(calibrated: Iterable[Part | str]) -> Part:
    """A text of another source than any of those `calibrated` on; where they leave none, what `docs` keeps back."""
    names = {data if isinstance(data, str) else data.name for data in calibrated}
    return KEPT_BACK if OTHER.name in names else OTHER


def named(data: Part | str) -> str:
    """A text as it is shown: `manuals`, `docs, split test`."""
    if isinstance(data, str):
        return data
    return ", ".join([data.name, *(f"{key} {value}" for key, value in data.arguments.items())])


def text_of(data: str | None) -> Part | str:
    """What `--data` names; `docs` is the part of it that is kept back. Raises InputError when it names nothing."""
    if data is None:
        return OTHER
    try:
        found = TypeAdapter(Data).validate_python(data)
    except ValidationError as error:
        raise InputError(f"--data: {error.errors(include_url=False)[0]['msg']}") from None
    return KEPT_BACK if found == Part("docs") else found


def load_model(
    checkpoint: Checkpoint, device: str = "cpu", *, dtype: torch.dtype | str | None = None, rules: bool = True
) -> nn.Module:
    """The whole model as stock transformers load it, by default in float32 on a processor, as stored on an accelerator.

    `rules` says whether it obeys the runtime rules of its config, which stock transformers do not.
    """
    config = load_config(checkpoint)
    cls: Any = model_class(config, checkpoint)
    dtype = dtype or (torch.float32 if device == "cpu" else "auto")
    with _quietly():
        model, found = cls.from_pretrained(
            checkpoint.folder, config=config, dtype=dtype, ignore_mismatched_sizes=True, output_loading_info=True
        )
    _check_loaded(checkpoint, cls, found)
    if checkpoint.adapter is not None:
        _put_in(model, checkpoint, set(checkpoint.adapter.changes))
    model = model.to(device).eval()
    if rules:
        attach(model)
    return model


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the progress bar of transformers, which is a setting of the whole process."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _put_in(model: nn.Module, checkpoint: Checkpoint, changed: set[str]) -> None:
    """Give the model of an adapter's base the tensors, stored as those in `changed`, with the adapter in them."""
    weights = Weights(checkpoint, model)
    with torch.no_grad():
        for name in weights.names(""):
            if changed.intersection(weights.disk_names(name)):
                weights.current(name).copy_(weights.read(name))


def _check_loaded(checkpoint: Checkpoint, cls: type[nn.Module], found: dict[str, Any]) -> None:
    """Raise ModelError where stock transformers would go on with random numbers for what does not fit or is missing."""
    for name, stored, wanted in sorted(found["mismatched_keys"]):
        raise ModelError(
            f"{checkpoint.folder}: {name} is {list(stored)}, config.json asks for {list(wanted)}; they belong to two "
            f"models, or one is damaged: fetch or save both again"
        )
    for name in sorted(found["missing_keys"]):
        raise ModelError(
            f"{checkpoint.folder / 'config.json'}: {cls.__name__} needs {name}, which is not stored; mend config.json, "
            f"or fetch the weights again"
        )


def held_out(
    checkpoint: Checkpoint, *, data: Part | str = OTHER, length: int, samples: int, seed: int = 0
) -> list[dict[str, Tensor]]:
    """Batches of `input_ids` `[4, length]` (with labels for masked models), by default of `manuals`.

    The length is cut to what the model takes. A model without a tokenizer gets random tokens, which have a latency but
    no meaning. Raises InputError when the text is too short or the tokenizer belongs to another model.
    """
    config, tokenizer = load_config(checkpoint), load_tokenizer(checkpoint)
    positions = getattr(text_config(config), "max_position_embeddings", None)
    limits = [positions, getattr(tokenizer, "model_max_length", None)]
    length = int(min(limit for limit in [*limits, length] if limit))
    if tokenizer is None:
        data = Part("random")
    asked = Calibrate(data=data, samples=samples, length=length, batch=BATCH)
    rows, _ = batches(asked, tokenizer, config, seed)
    return rows
