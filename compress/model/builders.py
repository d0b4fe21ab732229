"""What makes the dense module that a pruned one was made of: a function of the caller's, or a library's by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from compress.console import detail
from compress.errors import InputError
from compress.model.skeleton import loose_tensors

Build = Callable[..., nn.Module]


def builder(build: Build | str) -> Build:
    """The function that `build` is or names: `package.module:function`, `timm:NAME`, `torchvision:NAME`, or
    `diffusers:CLASS`, which is called with the class's config.

    It imports what is named. Raises InputError where that is not there.
    """
    if not isinstance(build, str):
        return build
    place, _, name = build.partition(":")
    if not place or not name:
        raise InputError(f"build: {build!r}; write 'package.module:function', 'timm:NAME' or 'torchvision:NAME'")
    if place in LIBRARIES:
        library = _imported(place, f"build: {build}: {place} is not installed; pip install compress-models[{place}]")
        return LIBRARIES[place](library, name)
    found: Any = _imported(place, f"build: {build}: there is no module {place} to import")
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"build: {build}: {place} has no {name}")
        found = getattr(found, part)
    return found


def built(build: Build, arguments: Mapping[str, Any]) -> nn.Module:
    """What `build(**arguments)` returns; on the meta device, but where it makes tensors that are not stored.

    Raises InputError where it returns no module, or fails.
    """
    try:
        with torch.device("meta"):
            module = build(**arguments)
        lost = isinstance(module, nn.Module) and any(x.is_meta for x in loose_tensors(module, stored=False))
    except Exception as error:  # it may compute with values, which the meta device does not have
        detail(f"build: on the meta device: {error}; once more with memory for the weights")
        lost, module = True, None
    if lost:
        try:
            module = build(**arguments)
        except Exception as error:  # whatever the caller's code raises
            raise InputError(f"build: {_title(build)} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise InputError(f"build: {_title(build)} returns a {type(module).__name__}; it must return a module")
    return module


def _timm(library: Any, name: str) -> Build:
    if not library.is_model(name):
        raise InputError(f"build: timm has no model {name!r}; timm.list_models() has their names")
    return partial(library.create_model, name)


def _torchvision(library: Any, name: str) -> Build:
    models = _imported("torchvision.models", "build: torchvision has no models")
    if name not in models.list_models():
        raise InputError(f"build: torchvision has no model {name!r}; torchvision.models.list_models() has their names")
    backbone = "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters
    # Detectors would otherwise fetch weights of their backbone, which those that are loaded then overwrite.
    return partial(models.get_model, name, weights=None, **({"weights_backbone": None} if backbone else {}))


def _diffusers(library: Any, name: str) -> Build:
    cls = getattr(library, name, None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise InputError(f"build: diffusers has no model {name!r}")
    made: Any = cls

    def build(**config: Any) -> nn.Module:
        return made.from_config(config)

    return build


LIBRARIES: dict[str, Callable[[Any, str], Build]] = {
    "diffusers": _diffusers,
    "timm": _timm,
    "torchvision": _torchvision,
}


def _imported(name: str, otherwise: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            raise InputError(otherwise) from None
        raise InputError(f"build: {name} cannot be imported: {error}") from error


def _title(build: Build) -> str:
    return getattr(build, "__name__", None) or str(build)
