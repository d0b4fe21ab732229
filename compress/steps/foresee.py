"""A plan from a config alone: what is known of a recipe's steps without a weight being read."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.checkpoint.beside import write_config
from compress.checkpoint.locate import is_config_alone, is_hub_id
from compress.checkpoint.open import WHOLE, Checkpoint, open_config
from compress.checkpoint.weight_files import lacks_weights
from compress.errors import BudgetError, ConfigAloneError
from compress.execution.document import Plan, PlannedStep
from compress.execution.run import Options, Run, refuse_rules
from compress.execution.stages import Stages
from compress.model.model import Model
from compress.recipe.schema import Recipe
from compress.recipe.step import entry_of
from compress.steps.execute import described
from compress.steps.kind import Decision, ModelStep
from compress.steps.kinds import model_steps

COUNTS = "how many, not which: the choice is made by weights or text, which a config alone does not have"


def foreseen(recipe: Recipe, model: str | Path, options: Options, asked: bool | None) -> Plan | None:
    """The plan from the config alone where that is `asked` for (None: where no weights are at hand), else None.

    A step that reads no weight is decided as ever. Of another the numbers are given where they do not depend on what is
    read. Raises ConfigAloneError, with the step's place and a cure, where a config is not enough; of a model of the
    hub, nobody having asked, the weights are to be fetched then.
    """
    if asked is False or not (asked or (options.base is None and is_config_alone(model))):
        return None
    checkpoint = open_config(model, revision=options.revision, trust_remote_code=options.trust_remote_code)
    if not asked and not lacks_weights(checkpoint.folder):
        return None
    refuse_rules(checkpoint, str(model))
    fetchable = not asked and is_hub_id(model)
    try:
        return _plan(recipe, model, checkpoint, options, counts=not fetchable)
    except ConfigAloneError:
        if fetchable:
            return None
        raise


def _plan(recipe: Recipe, model: str | Path, checkpoint: Checkpoint, options: Options, *, counts: bool) -> Plan:
    """The plan for the model whose config is `checkpoint`; `counts`: numbers are enough where indices are not known."""
    course = Stages(["read"], [["decide"]] * len(recipe.steps))
    with course("read"):
        source = Model.of(checkpoint)
    run = Run(recipe.on(source.inputs.data), str(model), options, source, stages=course)
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        for number, kind in enumerate(model_steps(recipe)):
            with run.timed("decide"):
                planned, config = _planned(run, number, kind, counts)
            run.steps.append(planned)
            if number + 1 < len(recipe.steps):
                place = Path(folder) / f"step-{number + 1}"
                place.mkdir()
                write_config(place, dict(config), trust_remote_code=options.trust_remote_code)
                run.source = Model.of(open_config(place, trust_remote_code=options.trust_remote_code))
    return replace(run.plan(), config_only=True)


def _planned(run: Run, number: int, kind: ModelStep, counts: bool) -> tuple[PlannedStep, Mapping[str, Any]]:
    """The step as far as it is known, and the config that it leaves."""
    name, context = entry_of(run.recipe.steps[number]).name, run.context
    try:
        try:
            gathered = kind.gather(context, None)
            decision = kind.decide(context, gathered)
        except ConfigAloneError:
            return _guessed(run, number, name, kind, kind.guesses(context) if counts else [])
        edit = kind.edit(context, decision, gathered)
        return described(run, name, decision, edit), edit.config
    except BudgetError as error:
        raise BudgetError(f"steps.{number}: {error}") from None


def _guessed(
    run: Run, number: int, name: str, kind: ModelStep, guesses: list[Decision]
) -> tuple[PlannedStep, Mapping[str, Any]]:
    """What the guesses agree in. Raises ConfigAloneError where that is not everything but which units go."""
    edits = [kind.edit(run.context, guess, None) for guess in guesses]
    found = [
        replace(described(run, name, kind.counted(guess), edit), notes=[])
        for guess, edit in zip(guesses, edits, strict=True)
    ]
    if not found or any(other != found[0] for other in found):
        raise ConfigAloneError(f"steps.{number}: a config alone is not enough: {kind.unforeseen}. Or {WHOLE}")
    notes = [*run.source.graph.notes, *edits[0].notes, COUNTS]
    return replace(found[0], notes=notes), edits[0].config
