"""A folder as timm's hub format has it: config.json names the architecture, model.safetensors has its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compress.checkpoint.open import open_tensors
from compress.checkpoint.weight_files import SAFE, no_weights, weight_files
from compress.errors import InputError, ModelError
from compress.files.ordinary import check_ordinary
from compress.model.builders import builder
from compress.model.stored import FILE, first_names

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""What timm takes where a config is silent."""


@dataclass(frozen=True)
class TimmFolder:
    """The `name` of the architecture, the `arguments` of timm's function that builds it, the `size` of an image
    (channels, height, width), and what is subtracted from its channels and divides them."""

    folder: Path
    name: str
    arguments: dict[str, Any]
    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def build(self) -> str:
        """As `compress.load` takes it."""
        return f"timm:{self.name}"

    @classmethod
    def read(cls, folder: Path) -> TimmFolder:
        """What config.json says. Raises InputError, naming the field, where it is not as timm writes it."""
        folder = folder.expanduser()
        file = folder / "config.json"
        check_ordinary(file)
        if (folder / FILE).exists():
            raise InputError(f"{folder}: was pruned already (it has a {FILE}); prune the model that it was made from")
        config: Any = json.loads(file.read_text(encoding="utf-8"))
        said = config.get("pretrained_cfg") or {}
        if not isinstance(said, dict):
            raise InputError(
                f"{file}: pretrained_cfg is {said!r}, no settings by name; write the folder with timm anew"
            )
        more = config.get("model_args") or {}
        if not isinstance(more, dict):
            raise InputError(f"{file}: model_args is {more!r}, no arguments by name; write the folder with timm anew")
        arguments = {} if config.get("num_classes") is None else {"num_classes": config["num_classes"]}
        size = _numbers(file, said, "input_size", [3, 224, 224], 3)
        if any(one < 1 or one != int(one) for one in size):
            raise InputError(f"{file}: input_size is {said['input_size']!r}; it has channels, height and width")
        channels, height, width = (int(one) for one in size)
        mean, std = (_numbers(file, said, name, IMAGENET[name], channels) for name in ("mean", "std"))
        return cls(folder, config["architecture"], {**arguments, **more}, (channels, height, width), mean, std)

    def module(self) -> nn.Module:
        """timm's module with the weights. Raises InputError where they are missing or timm is, ModelError where they
        are another model's."""
        module = builder(self.build)(**self.arguments).eval()
        found: dict[str, Tensor] = {}
        for file in weight_files(self.folder, SAFE, {})[0]:
            held = open_tensors(file)
            found.update((name, held.read(name)) for name in held.tensors)
        if not found:
            raise InputError(no_weights(self.folder))
        wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        given = {name: tuple(tensor.shape) for name, tensor in found.items()}
        if lost := {name for name in first_names(module) if given.get(name) != wanted[name]} | (given.keys() - wanted):
            name = min(lost)
            raise ModelError(
                f"{self.folder}: {name} is {_shown(given.get(name))} there and {_shown(wanted.get(name))} in timm's "
                f"{self.name}; mend config.json (num_classes, model_args)"
            )
        module.load_state_dict(found, strict=False)  # tied tensors may be stored once
        return module


def _numbers(file: Path, said: dict[str, Any], name: str, otherwise: Any, count: int) -> tuple[float, ...]:
    values = said.get(name, otherwise)
    if not isinstance(values, list | tuple) or len(values) != count or not all(type(x) in (int, float) for x in values):
        raise InputError(f"{file}: pretrained_cfg.{name} is {values!r}; {count} numbers are needed")
    return tuple(values)


def _shown(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))
