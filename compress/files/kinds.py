"""What a command names, told by what lies there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from compress.files.onnx import is_onnx
from compress.files.ordinary import is_path

Kind = Literal["onnx", "pipeline", "timm"]

INDEX = "model_index.json"
"""Of a pipeline of diffusers: which model lies in which folder beside it."""


def kind_of(model: str | Path) -> Kind | None:
    """An ONNX file; the folder of a pipeline of diffusers, with model_index.json; or a folder as timm writes it: its
    config.json has an `architecture` and no `model_type`.

    None for all else, which transformers reads or refuses.
    """
    if is_onnx(model):
        return "onnx"
    folder = Path(model).expanduser() if str(model) and is_path(Path(model)) else None
    if folder is not None and (folder / INDEX).is_file():
        return "pipeline"
    file = None if folder is None else folder / "config.json"
    if file is None or not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    timms = isinstance(config, dict) and isinstance(config.get("architecture"), str) and "model_type" not in config
    return "timm" if timms else None
