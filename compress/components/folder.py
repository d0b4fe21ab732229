"""The folder of a pipeline: model_index.json says what lies in which folder beside it."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from compress.errors import InputError
from compress.files.kinds import INDEX
from compress.files.ordinary import check_ordinary

LIBRARIES = ("diffusers", "transformers")
"""Whose classes are loaded; code of a folder's own never is."""

_NAME = re.compile(r"\w+")


@dataclass(frozen=True)
class Component:
    """One model of a pipeline: its `name`, the `library` and `cls` that model_index.json names, and its `folder`."""

    name: str
    library: str
    cls: str
    folder: Path

    def load(self) -> nn.Module:
        """The model, in evaluation mode. Raises InputError where its class or its weights cannot be had."""
        try:
            library = importlib.import_module(self.library)
        except ModuleNotFoundError:
            cure = f"pip install compress-models[{self.library}]"
            raise InputError(f"{self.folder}: a {self.cls} of {self.library}, which is not installed; {cure}") from None
        cls = getattr(library, self.cls, None)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise InputError(f"{self.folder}: {self.library} {library.__version__} has no model {self.cls}")
        loader: Any = cls
        try:
            return loader.from_pretrained(self.folder, use_safetensors=True).eval()
        except Exception as error:  # whatever the libraries raise for a folder that is not as they saved it
            raise InputError(f"{self.folder}: {self.cls} cannot be loaded: {error}") from error


def components(folder: Path) -> Mapping[str, Component]:
    """The models of a pipeline by name. Raises InputError where its index cannot be read."""
    file = folder / INDEX
    check_ordinary(file)
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        named = [(name, *value) for name, value in index.items() if isinstance(value, list) and len(value) == 2]
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{file}: cannot be read ({error}); a pipeline of diffusers has it") from None
    found = {}
    for name, library, cls in named:
        if library in LIBRARIES and _NAME.fullmatch(name) and _has_weights(folder / name):
            found[name] = Component(name, library, str(cls), folder / name)
    return found


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))
