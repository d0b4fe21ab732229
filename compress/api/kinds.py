"""The functions for what is no model of transformers: modules that are imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from compress.files.kinds import Kind, kind_of

MODULES: dict[Kind, str] = {
    "onnx": "compress.api.onnx_files",
    "pipeline": "compress.api.pipelines",
    "timm": "compress.api.timm_folders",
}


def special(model: str | Path) -> Any:
    """The module with `prune`, `plan`, `apply`, `opened` for what `model` names; None for a model of transformers."""
    kind = kind_of(model)
    return None if kind is None else import_module(MODULES[kind])
