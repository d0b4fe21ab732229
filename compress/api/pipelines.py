"""A pipeline of several models, as diffusers saves it, pruned component by component."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
from pydantic import BaseModel
from torch import nn

from compress import pipeline
from compress.api.module import Pruned, tried
from compress.api.module import prune as prune_module
from compress.api.options import Options
from compress.checkpoint.target import check_target
from compress.checkpoint.write import new_folder
from compress.components.cliff import PARTS, Walk, damage, walk
from compress.components.examples import SAMPLES, example_of
from compress.components.folder import Component, components
from compress.components.rows import Row
from compress.console import say
from compress.errors import InputError
from compress.files.kinds import INDEX
from compress.inputs.arguments import Arguments
from compress.inputs.batch import given
from compress.inputs.choose import inputs_of
from compress.inputs.given import Given
from compress.model.model import Model
from compress.model.skeleton import held_module
from compress.recipe.components import PruneComponents
from compress.recipe.schema import Recipe

LEFT_OUT = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".py", ".msgpack", ".onnx")
"""Pickles and code are not carried over, nor weights that would be the unpruned ones."""


def prune(recipe: Recipe, model: Path, out: Path, options: Options | None = None) -> list[Row]:
    """Prune the components that the recipe names of the pipeline in the folder `model` into the new folder `out`.

    Where no size changes, `out` opens as `model` did. A component of diffusers whose sizes changed is a folder for
    `compress.load`, as the library has no config for it.

    Raises InputError where the recipe has no components or other ones, and what pruning each of them raises.
    """
    options = options or Options()
    step = _components(recipe)
    known = components(model)
    for name in step.components:
        if name not in known:
            raise InputError(f"components: {model} has no {name}; it has {', '.join(known) or 'none with safetensors'}")
    check_target(out, options.force, [model])
    rows = []
    with new_folder(out, force=options.force) as place:
        for name, steps in step.components.items():
            say(f"{name}: {known[name].cls}")
            rows.append(_one(recipe, known[name], steps, place, step.before_cliff, options))
        _carry_over(model, place, set(step.components))
        (place / "recipe.yaml").write_text(recipe.dump(), encoding="utf-8")
        text = json.dumps({"components": [asdict(row) for row in rows]}, indent=2, ensure_ascii=False)
        (place / "report.json").write_text(text + "\n", encoding="utf-8")
    return rows


def plan(recipe: Recipe, model: Path, options: Options | None = None) -> NoReturn:
    """Raises InputError: there is none."""
    raise InputError(
        f"{model}: components are loaded and cut one by one, so they make no plan beforehand; run the recipe"
    )


def apply(plan: Any, model: Path, out: Path, options: Options | None = None) -> NoReturn:
    """Raises InputError: there is none."""
    raise InputError(f"{model}: a pipeline has no plan to execute; run the recipe")


def opened(model: Path) -> NoReturn:
    """Raises InputError: what can be looked at are its components."""
    held = components(model)
    raise InputError(f"{model}: a pipeline of {', '.join(held)}; look at one of them in Python, by compress.inspect")


def _components(recipe: Recipe) -> PruneComponents:
    step = recipe.steps[0]
    if not isinstance(step, PruneComponents):
        raise InputError(
            f"{INDEX}: this is a pipeline of several models, and the recipe does not say which to prune; write its "
            "steps under `components:`, as the recipe sd-47-35 does"
        )
    return step


def _one(
    recipe: Recipe, component: Component, steps: Sequence[BaseModel], place: Path, before_cliff: bool, options: Options
) -> Row:
    module = component.load()
    example = _example(component, module, recipe.seed)
    found = _walk(module, example, recipe, steps) if before_cliff else None
    part = 1.0 if found is None else found.before / PARTS
    if found is not None and found.cliff:
        say(f"{component.name}: stops before a cliff, at {part:.0%} of what was asked for")
    target = place / component.name
    if part == 0:
        shutil.copytree(component.folder, target, ignore=shutil.ignore_patterns(*(f"*{end}" for end in LEFT_OUT)))
        return _row(component, module, module, 0.0, found, "")
    own = recipe.model_copy(update={"steps": _scaled(steps, part)})
    if component.library == "transformers":  # whose config takes other sizes
        chosen = Options(evaluate=False, device=options.device)
        report = pipeline.run(own, component.folder, target, chosen)
        after = Component(component.name, component.library, component.cls, target).load()
        return _row(component, module, after, part, found, report["load"])
    small: Pruned[Any] = prune_module(module, dict(example), own, data=[dict(example)])
    if _sizes(small.module) == _sizes(module):
        small.module.save_pretrained(target)
        (target / "plan.json").write_text(small.plan.dump(), encoding="utf-8")
        load = f"diffusers.{component.cls}.from_pretrained({{folder!r}})"
    else:
        build = f"diffusers:{component.cls}"
        config: Any = module.config
        small.save(target, build=build, arguments={k: v for k, v in config.items() if not k.startswith("_")})
        load = f"compress.load({{folder!r}}, build={build!r})"
    return _row(component, module, small.module, part, found, load)


def _example(component: Component, module: nn.Module, seed: int) -> Mapping[str, Any]:
    """What the component is called with."""
    if component.library == "transformers":
        return given(inputs_of(module, module.config).check(SAMPLES, seed))
    return example_of(module, seed)


def _walk(module: nn.Module, example: Mapping[str, Any], recipe: Recipe, steps: Sequence[BaseModel]) -> Walk:
    source = Model.of(held_module(module, Given(Arguments.of(module, dict(example)), [dict(example)], None)))
    with torch.no_grad():
        dense = module(**example)

        def damage_of(part: float) -> float:
            small = tried(source, module, recipe.model_copy(update={"steps": _scaled(steps, part)}))
            return damage(small(**example), dense)

        return walk(damage_of)


def _scaled(steps: Sequence[BaseModel], part: float) -> list[BaseModel]:
    """The steps with each share multiplied. Raises InputError for a `remove` that is no share."""
    made = []
    for number, step in enumerate(steps):
        remove: Any = getattr(step, "remove")  # noqa: B009 - a field of most kinds of steps
        if part != 1 and not isinstance(remove, float):
            raise InputError(f"components: step {number}: before_cliff goes up to a share; write `remove` as one")
        made.append(step if part == 1 else step.model_copy(update={"remove": remove * part}))
    return made


def _sizes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _row(component: Component, dense: nn.Module, small: nn.Module, part: float, found: Walk | None, load: str) -> Row:
    before, after = (sum(int(p.count_nonzero()) for p in module.parameters()) for module in (dense, small))
    return Row(component.name, before, after, part, [] if found is None else list(found.damage), load)


def _carry_over(model: Path, place: Path, made: set[str]) -> None:
    """All else that a pipeline needs: other components, tokenizers, schedulers, the index."""
    for entry in sorted(model.iterdir()):
        if entry.name in made or entry.name.startswith(".") or entry.suffix in LEFT_OUT:
            continue
        if entry.is_dir():
            shutil.copytree(entry, place / entry.name, ignore=shutil.ignore_patterns(*(f"*{end}" for end in LEFT_OUT)))
        elif entry.name not in ("report.json", "recipe.yaml"):
            shutil.copy(entry, place / entry.name)
