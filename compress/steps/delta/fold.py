"""Base and delta in, fine-tuned model out: `compress apply-delta`."""

from __future__ import annotations

from math import prod
from pathlib import Path

import torch
from torch import Tensor

from compress.checkpoint.beside import copy_beside, write_config
from compress.checkpoint.header import DTYPES
from compress.checkpoint.open import Checkpoint, open_checkpoint, open_tensors
from compress.checkpoint.shapes import check_shapes
from compress.checkpoint.side_files import side_files
from compress.checkpoint.write import ShardWriter, check_apart, new_folder
from compress.console import say, track
from compress.errors import CompressError, InputError, VerifyError
from compress.model.build import load_config, model_class, runnable_model
from compress.model.weights import Weights
from compress.steps.delta.format import DESCRIPTION, TENSORS, Description, Stored, read_description
from compress.steps.delta.sparse import positions_of

LARGEST = 2_000_000_000
"""Bytes of a model up to which the check loads it whole; of larger ones it compares names and shapes."""


def apply_delta(
    base: str | Path,
    delta: Path,
    out: Path,
    *,
    force: bool = False,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> Description:
    """Write base + delta into the new folder `out`, an ordinary checkpoint in the fine-tuned model's dtypes.

    Sums are taken in float64, so that they are rounded once. One tensor is in memory at a time. Raises InputError when
    `base` is not what the delta was made from, or a file is corrupt, and then writes nothing; VerifyError when stock
    transformers do not find every tensor in its place.
    """
    delta = delta.expanduser().absolute()
    described = read_description(delta)
    with new_folder(out, force=force, inputs=[base, delta]) as folder:
        opened = open_checkpoint(
            base, revision=revision, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle
        )
        check_apart(out, [opened.folder])  # of a hub id it is known only now
        if opened.digest != described.base["digest"]:
            raise InputError(
                f"{base}: not the base of {delta}, which was made from {described.base['name']} "
                f"(digest {described.base['digest']}, this one's is {opened.digest}); give that model"
            )
        file = open_tensors(delta / TENSORS)
        with opened.unchanged(), file.unchanged():
            _check(described, opened, file)
            shapes = [(name, DTYPES[one.dtype], tuple(one.shape)) for name, one in described.tensors.items()]
            with ShardWriter(folder, shapes) as writer:
                for name, stored in track(described.tensors.items(), "adding the delta"):
                    writer.add(name, _merged(name, stored, opened, file))
        write_config(folder, described.config, trust_remote_code=trust_remote_code)
        beside = side_files(delta, code=trust_remote_code)
        copy_beside(beside.travelling, delta, folder, trust_remote_code=trust_remote_code)
        if others := [str(path.relative_to(delta)) for path in beside.staying if path.name != DESCRIPTION]:
            say(f"left behind, as no model is known to need it: {', '.join(others)}")
        _verify(folder, trust_remote_code)
    return described


def _check(described: Description, base: Checkpoint, file: Checkpoint) -> None:
    """Everything that the description names is there, before anything is written."""
    delta, specs = file.folder, file.tensors
    for name, stored in described.tensors.items():
        parts = {"whole": [name], "same": []}.get(stored.form, [f"{name}.values", f"{name}.{stored.form}"])
        if lost := [part for part in parts if part not in specs]:
            raise InputError(f"{delta / TENSORS}: lacks {lost[0]}, which {DESCRIPTION} names; prune anew")
        whole = specs[name] if stored.form == "whole" else base.tensors.get(stored.base or "")
        if stored.form not in ("whole", "same", "gaps", "bits") or stored.dtype not in DTYPES:
            raise InputError(f"{delta / DESCRIPTION}: {name}: unknown form {stored.form!r} or dtype {stored.dtype!r}")
        if stored.form != "whole" and stored.base not in base.tensors:
            raise InputError(f"{delta / DESCRIPTION}: {name}: the base has no {stored.base}")
        if whole is not None:
            check_shapes([(whole, stored.shape, whole.dtype)], f"{delta / DESCRIPTION} says")


def _merged(name: str, stored: Stored, base: Checkpoint, file: Checkpoint) -> Tensor:
    if stored.form == "whole":
        return file.read(name)
    assert stored.base is not None  # `_check` has seen it in the base
    before = base.read(stored.base)
    if stored.form == "same":
        return before
    parts = {part: file.read(f"{name}.{part}") for part in ("values", stored.form)}
    try:
        positions = positions_of(parts, prod(stored.shape))
    except ValueError as error:
        raise InputError(f"{file.folder / TENSORS}: {name} is corrupt: {error}; prune anew") from None
    merged = before.reshape(-1).to(DTYPES[stored.dtype])
    merged[positions] = (before.reshape(-1)[positions].double() + parts["values"].double()).to(merged.dtype)
    return merged.reshape(stored.shape)


def _verify(folder: Path, trust_remote_code: bool) -> None:
    """Stock transformers find every tensor that the config asks for, and no other."""
    try:
        written = open_checkpoint(folder, trust_remote_code=trust_remote_code)
        config = load_config(written)
        cls = model_class(config, written)
        weights = Weights(written, runnable_model(written))
    except CompressError as error:
        raise VerifyError(f"what was written cannot be opened: {error}") from error
    wrong = list(weights.unexpected)
    if written.bytes <= LARGEST:
        from transformers.utils import logging

        logging.disable_progress_bar()
        load = cls.from_pretrained  # pyright: ignore[reportAttributeAccessIssue]
        model, info = load(folder, config=config, output_loading_info=True, dtype="auto")
        wrong += [str(name) for names in info.values() for name in names]
        wrong += [name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]
    if wrong:
        raise VerifyError(f"{folder}: stock transformers do not take {wrong[0]} as it was written")
