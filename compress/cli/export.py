"""compress export: a folder as an ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress import console
from compress.cli.app import Flag, Opening, Talk, To, announce, app, loading


@app.command(name="export")
def export(
    model: str,
    /,
    *,
    to: To = None,
    opset: int | None = None,
    dynamic: str = "batch,sequence",
    batch: int = 1,
    length: int = 128,
    cache: bool = True,
    tolerance: float = 1e-4,
    force: Flag = False,
    opening: Opening = Opening(),
    talk: Talk = Talk(),
) -> None:
    """Write MODEL as an ONNX graph and check it against torch in ONNX Runtime, at two shapes.

    Parameters
    ----------
    model
        A folder or a hub id.
    to
        The folder to write; MODEL/onnx by default.
    opset
        Version of ONNX's operators; the exporter's newest by default.
    dynamic
        Axes of any size, with commas between: batch, sequence, or none.
    batch
        Size of the batch where that is not dynamic.
    length
        Tokens where the sequence is not dynamic.
    cache
        Whether a decoder takes and gives keys and values, as generation needs.
    tolerance
        The largest difference from torch, times the largest value where that is above one.
    force
        Replace the folder if it exists.
    """
    announce(f"{model} → {to or Path(model) / 'onnx'}, an ONNX graph")
    with loading():
        from pydantic import ValidationError

        from compress.checkpoint.open import open_checkpoint
        from compress.checkpoint.target import placed
        from compress.checkpoint.write import check_apart, new_folder
        from compress.errors import InputError
        from compress.export.onnx import export_onnx, onnx_table
        from compress.recipe.export import Onnx

    axes = [] if dynamic == "none" else [name.strip() for name in dynamic.split(",")]
    asked = {"opset": opset, "dynamic": axes, "batch": batch, "length": length, "cache": cache, "tolerance": tolerance}
    try:
        settings = Onnx.model_validate(asked)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"--{first['loc'][0]} {first['input']}: {first['msg']}") from None
    if to is None and not Path(model).expanduser().is_dir():
        raise InputError(f"{model}: is no folder to write onnx into; name one with --to")
    more: dict[str, Any] = {"trust_remote_code": opening.trust_remote_code, "allow_pickle": opening.allow_pickle}
    beside = Path(model).expanduser() / "onnx"
    target = to if to is not None else beside
    apart = placed(target) != placed(beside)  # MODEL/onnx is the one place inside a model
    with new_folder(target, force=force, inputs=[model] if apart else []) as folder:
        checkpoint = open_checkpoint(model, revision=opening.revision, **more)
        check_apart(target, [checkpoint.folder] if apart else [])  # of a hub id it is known only now
        made = export_onnx(checkpoint, folder, settings)
    console.result(onnx_table(made, target), {"folder": str(target), **made.dump()})
