"""From a recipe's steps to their kinds."""

from __future__ import annotations

from pathlib import Path

from compress.errors import InputError
from compress.execution.document import Plan, read_plan
from compress.execution.stages import Stages
from compress.recipe.read import parse_recipe
from compress.recipe.schema import Recipe
from compress.recipe.step import entry_of
from compress.steps.kind import ArtifactStep, ModelStep, StepKind


def kinds_of(recipe: Recipe) -> list[StepKind]:
    """The recipe's steps, each as its kind."""
    return [entry_of(step).target(step) for step in recipe.steps]


def model_steps(recipe: Recipe) -> list[ModelStep]:
    """The steps of a recipe that writes a model. Raises InputError for one that writes something else."""
    found = []
    for number, kind in enumerate(kinds_of(recipe)):
        if not isinstance(kind, ModelStep):
            raise InputError(f"steps.{number}: `{kind.title()}`: {kind.unfit}")
        found.append(kind)
    return found


def artifact_step(recipe: Recipe) -> ArtifactStep | None:
    """The recipe's only step where its result is no model."""
    kind = kinds_of(recipe)[0]
    return kind if isinstance(kind, ArtifactStep) else None


def given_plan(plan: str | Path | Plan) -> tuple[Recipe, Plan]:
    """A plan, or what a file has of one, and the recipe that it decides. Raises InputError as `check_plan` does, and
    for a file that is no plan."""
    given = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    recipe = parse_recipe(given.recipe, name="the plan's recipe")
    check_plan(recipe, given)
    return recipe, given


def check_plan(recipe: Recipe, given: Plan) -> None:
    """Raises InputError where the plan's decisions are not those of its recipe's steps, or cannot be executed again."""
    names = [entry_of(step).name for step in recipe.steps]
    if names != (found := [step.kind for step in given.steps]):
        raise InputError(f"the plan decides {', '.join(found)}, its recipe asks for {', '.join(names)}; plan anew")
    for number, kind in enumerate(model_steps(recipe)):
        if not kind.replayable:
            raise InputError(f"steps.{number}: `{names[number]}` cannot be executed from a plan; run the recipe")


def stages(
    recipe: Recipe, given: Plan | None = None, *, written: bool, read: bool = True, evaluated: bool = False
) -> Stages:
    """Of a run that `read`s its model first; all steps but the last write, that one if its result is `written`."""
    last = len(recipe.steps) - 1
    steps = [
        kind.stages(given=given is not None, written=written or i < last) for i, kind in enumerate(model_steps(recipe))
    ]
    after = [*(["evaluate"] if evaluated else []), *(["export"] if recipe.export is not None else []), "report"]
    return Stages(["read"] if read else [], steps, after if written else ())
