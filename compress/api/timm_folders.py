"""The pipeline of a folder of timm's: its module is pruned in memory, and the result opens by `compress.load`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from compress.api.module import Pruned, prune_given
from compress.checkpoint.held import HeldCheckpoint
from compress.checkpoint.write import check_apart, new_folder
from compress.data.images import Preparation, image_samples
from compress.errors import InputError
from compress.execution.document import Plan
from compress.execution.run import Options
from compress.inputs.arguments import Arguments
from compress.inputs.given import Given
from compress.model.skeleton import held_module
from compress.model.timm_folder import TimmFolder
from compress.recipe.part import Part
from compress.recipe.read import read_recipe
from compress.recipe.schema import Recipe
from compress.report import Report
from compress.steps.kinds import given_plan, model_steps

__all__ = ["apply", "opened", "plan", "prune"]

ROWS = 2
"""Samples of noise that the model is traced with, and its result compared on."""


def prune(recipe: str | Path | Recipe, model: Path, out: Path, options: Options | None = None) -> Report:
    """Prune the timm model in the folder `model` by a recipe into the new folder `out`.

    Raises what `compress.prune` does, InputError too where config.json is not as timm writes it or timm is missing.
    """
    read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    return _write(read, model, out, options or Options(), None)


def apply(plan: str | Path | Plan, model: Path, out: Path, options: Options | None = None) -> Report:
    """Execute a plan as it stands on the folder that it was made for. Raises InputError for another model."""
    recipe, given = given_plan(plan)
    return _write(recipe, model, out, options or Options(), given)


def plan(recipe: str | Path | Recipe, model: Path, options: Options | None = None) -> Plan:
    """Decide everything, and write nothing."""
    read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    return _pruned(TimmFolder.read(model), read, options or Options(), None).plan


def opened(model: Path) -> HeldCheckpoint:
    """The model, to be looked at."""
    found = TimmFolder.read(model)
    module = found.module()
    return held_module(module, Given(Arguments.of(module, _noise(found))))


def _write(recipe: Recipe, model: Path, out: Path, options: Options, given: Plan | None) -> Report:
    check_apart(out, [model])
    found = TimmFolder.read(model)
    with new_folder(out, force=options.force) as place:
        made = _pruned(found, recipe, options, given)
        how = f'compress.load("{out}", build="{found.build}")'
        report = Report(**{**made.report, "load": how})
        made.write(place, report, found.build, found.arguments)
        shutil.copyfile(found.folder / "config.json", place / "config.json")
    return report


def _pruned(found: TimmFolder, recipe: Recipe, options: Options, given: Plan | None) -> Pruned:
    for name in ("resume", "include", "base", "revision"):
        if getattr(options, name):
            raise InputError(f"--{name}: means nothing for a folder of timm's; leave it out")
    if recipe.export is not None:
        raise InputError("export: a model of timm is exported by torch.onnx once it is loaded; leave it out")
    model_steps(recipe)
    module = found.module()
    data = lambda: _images(found, recipe)  # noqa: E731  # read only where the recipe asks for it
    inputs = Given(Arguments.of(module, _noise(found)), data)
    return prune_given(module, inputs, recipe, given, title=str(found.folder), device=options.where)


def _noise(found: TimmFolder) -> Tensor:
    return torch.randn(ROWS, *found.size, generator=torch.Generator().manual_seed(0))


def _images(found: TimmFolder, recipe: Recipe) -> Iterator[Tensor]:
    """What the recipe calibrates on, `photos` unless it says, as the model takes them."""
    calibrate = recipe.calibrate
    prepare = Preparation(found.size[1:], found.mean, found.std)
    yield from image_samples(calibrate.data or Part("photos"), calibrate.samples, prepare, recipe.seed).split(
        calibrate.batch
    )
