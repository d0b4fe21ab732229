"""A folder as a model that runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from compress.checkpoint.open import open_checkpoint
from compress.evaluate.load import load_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def load(
    model: str | Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype | Literal["auto"] = "auto",
    rules: bool = True,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    revision: str | None = None,
    base: str | None = None,
) -> PreTrainedModel:
    """Load a model, pruned or not, by the class that it was saved from; it then obeys its runtime rules.

        model = compress.load("my-model-small")
        model.generate(**tokenizer("The", return_tensors="pt"))

    Args:
        model: A folder, or a hub id (`owner/name`, `owner/name@revision`).
        device: A torch device: cpu, cuda, cuda:1, mps.
        dtype: The dtype of the weights; `auto` as they are stored.
        rules: Whether the model obeys the runtime rules that its config asks for, such as skipping experts; stock
            `from_pretrained` never does. To obey for a while only, use `compress.runtime.attach`.
        trust_remote_code: Run code that comes with the checkpoint. Models that this program wrote need none.
        allow_pickle: Open weights that are pickled; a pickle can run code.
        revision: Branch, tag or commit of a hub model.
        base: Of a LoRA adapter: the model that it is merged into, where its config does not name it.

    Returns:
        A stock transformers model in evaluation mode.

    Raises:
        InputError: There is no such model, or its files are not usable.
        ModelError: Its class is not known, weights are missing or do not fit, or it asks for unknown runtime rules.
    """
    checkpoint = open_checkpoint(
        model, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, revision=revision, base=base
    )
    return cast("PreTrainedModel", load_model(checkpoint, device, dtype=dtype, rules=rules))
