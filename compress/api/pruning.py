"""Recipes carried out, decided only, or carried out as decided."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from compress import pipeline
from compress.api.kinds import special
from compress.api.options import OptionFields, Options, chosen
from compress.components.rows import Row
from compress.execution.document import Plan
from compress.recipe.read import read_recipe
from compress.recipe.schema import Recipe
from compress.report import Report
from compress.steps.delta.format import Description


def run(
    recipe: str | Path | Recipe,
    model: str | Path,
    out: str | Path,
    options: Options | None = None,
    *,
    set: Sequence[str] = (),
    **fields: Unpack[OptionFields],
) -> Report | Description | list[Row] | None:
    """Prune a model by a recipe into a new folder; the same as the command `compress RECIPE MODEL OUT`.

        report = compress.run("flap-20", "my-model", "my-model-small", evaluate=False)
        report["after"]["params"] / report["before"]["params"]

    Args:
        recipe: The name of a recipe that ships (`flap-20`, `contrasts/structured`), the path of a YAML file, or a
            recipe that was read.
        model: A folder with config.json and safetensors, a hub id (`owner/name`, `owner/name@revision`), an .onnx
            file, or the folder of a pipeline of diffusers.
        out: The folder to write, of an .onnx file another one. It appears when everything is done and verified.
        options: How to go about it; the defaults without.
        set: Fields of the recipe to change, as `--set` takes them: `["steps.0.remove=30%"]`.
        **fields: Fields of `Options` as keyword arguments; they win over `options`.

    Returns:
        What report.json holds: figures `before` and `after`, `families`, `notes`, the line of Python that `load`s the
        result. Of a recipe that prunes a delta, what delta.json holds; of one that prunes a pipeline, a row for each of
            its components. None in all but the first process of several.

    Raises:
        InputError: The recipe, the model's folder or `out` is not usable as given.
        ModelError: The model is not understood.
        BudgetError: The budget cannot be met.
        VerifyError: What was written does not behave as planned; it is kept beside `out` as `<out>.partial`.
            All of them are CompressErrors (`compress.errors`) and say what is wrong, where, and the cure.
    """
    if (own := special(model)) is not None:
        return own.prune(read(recipe, set), Path(model), Path(out), chosen(options, fields))
    return pipeline.run(read(recipe, set), model, out, chosen(options, fields))


def plan(
    recipe: str | Path | Recipe,
    model: str | Path,
    options: Options | None = None,
    *,
    set: Sequence[str] = (),
    config_only: bool | None = None,
    **fields: Unpack[OptionFields],
) -> Plan:
    """Decide all that `run` would do, and write nothing; the same as the command `compress plan RECIPE MODEL`.

        plan = compress.plan("magnitude-20", "my-model")
        Path("plan.json").write_text(plan.dump())

    Args:
        recipe: As `run` takes it.
        model: A folder, or a hub id.
        options: How to go about it; what is about writing and evaluation has no effect.
        set: Fields of the recipe to change, as `--set` takes them.
        config_only: Read or fetch no weights; such a plan says counts and sizes, and cannot be applied. None: so for a
            folder with a config alone, and for a hub id where the recipe reads no weight.
        **fields: Fields of `Options` as keyword arguments; they win over `options`.

    Returns:
        Every decision, step by step, with the size `before` and `after` and who can open the result. `dump()` is the
        JSON that `apply` reads.

    Raises:
        InputError: The recipe or the model's folder is not usable as given, or the recipe prunes a delta.
        ConfigAloneError: A config alone does not say what the recipe decides.
        ModelError: The model is not understood.
        BudgetError: The budget cannot be met.
    """
    if (own := special(model)) is not None:
        return own.plan(read(recipe, set), Path(model), chosen(options, fields))
    return pipeline.plan(read(recipe, set), model, chosen(options, fields), config_only=config_only)


def apply(
    plan: str | Path | Plan,
    model: str | Path,
    out: str | Path,
    options: Options | None = None,
    **fields: Unpack[OptionFields],
) -> Report | None:
    """Execute a plan as it stands; the same as the command `compress apply PLAN MODEL OUT`.

    Args:
        plan: What `plan` returned, or the file that it was written to (plan.json of an output folder is one).
        model: The model that the plan was made for.
        out: The folder to write.
        options: How to go about it; the defaults without.
        **fields: Fields of `Options` as keyword arguments; they win over `options`.

    Returns:
        What report.json holds, as `run` does. None in all but the first process of several.

    Raises:
        InputError: The plan is none, or was made for another model; `out` is not usable as given.
        VerifyError: What was written does not behave as planned; it is kept beside `out` as `<out>.partial`.
    """
    if (own := special(model)) is not None:
        return own.apply(plan, Path(model), Path(out), chosen(options, fields))
    return pipeline.apply(plan, model, out, chosen(options, fields))


def read(recipe: str | Path | Recipe, changes: Sequence[str]) -> Recipe:
    """The recipe with these fields changed."""
    if not isinstance(recipe, Recipe):
        return read_recipe(recipe, changes)
    if changes:
        raise TypeError("set: changes a recipe that is read here; pass the recipe's name or path")
    return recipe
