"""A folder as a model that runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from compress.checkpoint.open import open_checkpoint
from compress.evaluate.load import load_model
from compress.model.builders import Build
from compress.model.stored import FILE, StoredModule

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


@overload
def load(
    model: str | Path,
    *,
    build: Build | str,
    arguments: Mapping[str, Any] | None = None,
    device: str = "cpu",
    dtype: torch.dtype | Literal["auto"] = "auto",
) -> nn.Module: ...


@overload
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
) -> PreTrainedModel: ...


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
    build: Build | str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> PreTrainedModel | nn.Module:
    """Load a model, pruned or not, by the class that it was saved from; it then obeys its runtime rules.

        model = compress.load("my-model-small")
        model.generate(**tokenizer("The", return_tensors="pt"))

        net = compress.load("my-net-small", build=make_net)  # what `compress.prune` made of a module, saved

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
        build: Of a module that `compress.prune` made: what makes the dense one, a function or the name of one as
            `package.module:function`, `timm:NAME` or `torchvision:NAME`. What the folder itself names is imported with
            `trust_remote_code` only.
        arguments: Keyword arguments of `build`, by default those that the module was saved with.

    Returns:
        A stock transformers model, or the module, in evaluation mode.

    Raises:
        InputError: There is no such model, or its files are not usable; nothing says how the module is built.
        ModelError: Its class is not known, weights are missing or do not fit, or it asks for unknown runtime rules.
    """
    if build is not None or os.path.isfile(os.path.join(model, FILE)):  # no error for a name too long
        stored = StoredModule.read(folder := Path(model))
        named = stored.build if trust_remote_code else None
        module = stored.load(folder, named if build is None else build, arguments)
        return module.to(device) if dtype == "auto" else module.to(device, dtype)
    checkpoint = open_checkpoint(
        model, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, revision=revision, base=base
    )
    return cast("PreTrainedModel", load_model(checkpoint, device, dtype=dtype, rules=rules))
