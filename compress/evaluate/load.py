"""A checkpoint as a model that runs, and the held-out data it is measured on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from compress.errors import InputError, ModelError
from compress.inputs.batch import Batch
from compress.inputs.kind import Inputs
from compress.model.build import load_config, model_class
from compress.model.weights import Weights
from compress.recipe.part import Data, Part
from compress.recipe.schema import Calibrate
from compress.registry import sources
from compress.runtime import attach

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint

BATCH = 4


def named(data: Part | str) -> str:
    """A text as it is shown: `manuals`, `docs, split test`."""
    if isinstance(data, str):
        return data
    return ", ".join([data.name, *(f"{key} {value}" for key, value in data.arguments.items())])


def data_of(inputs: Inputs, data: str | None) -> Part | str:
    """What `--data` names; what is calibrated on by default stands for the part of it that is kept back.

    Raises InputError when it names nothing.
    """
    if data is None:
        return inputs.held_out(())
    try:
        found = TypeAdapter(Data).validate_python(data)
    except ValidationError as error:
        raise InputError(f"--data: {error.errors(include_url=False)[0]['msg']}") from None
    splits = found == inputs.data and "split" in sources.get(inputs.data.name).parameters
    return Part(inputs.data.name, {"split": "test"}) if splits else found


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
    inputs: Inputs, checkpoint: Checkpoint, *, data: Part | str | None = None, length: int, samples: int, seed: int = 0
) -> list[Batch]:
    """Batches of 4 samples with labels where they have some, by default of data that no shipped recipe calibrates on.

    The length is cut to what the model takes. A model that no real data can be given to gets random ones, which have a
    latency but no meaning. Raises InputError when the data does not suffice or does not fit the model.
    """
    longest = inputs.longest(checkpoint)
    chosen = data if data is not None else inputs.held_out(())
    if not inputs.meaningful(checkpoint):
        chosen = Part("random")
    asked = Calibrate(data=chosen, samples=samples, length=min(length, longest or length), batch=BATCH)
    rows, _ = inputs.batches(asked, checkpoint, seed)
    return rows


def meaningless(inputs: Inputs) -> str:
    """Why no quality is measured of a model that no real data can be given to."""
    return f"quality not measured: nothing beside the weights turns data into {inputs.noun} (no tokenizer, for example)"
