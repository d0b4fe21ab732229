"""One step of a run: gather, decide, edit, write, verify; the processes above the first gather and produce along."""

from __future__ import annotations

from contextlib import nullcontext
from math import prod

from torch import Tensor

from compress.calibrate import distributed
from compress.console import detail, say
from compress.errors import BudgetError
from compress.execution.document import PlannedStep
from compress.execution.run import Run
from compress.recipe.step import entry_of
from compress.steps.kind import ModelStep
from compress.surgery.edit import Edit, Place
from compress.surgery.verify.run import verify


def execute(run: Run, number: int, place: Place | None) -> None:
    """Decide step `number`, or take what the run's plan has; with a `place` write its result there and verify it.

    Raises what the step's kind raises, a BudgetError with the step's place, and VerifyError.
    """
    step, context = run.recipe.steps[number], run.context
    entry = entry_of(step)
    kind: ModelStep = entry.target(step)
    given = run.given.steps[number].decision if run.given is not None else None
    calibrating = run.timed("calibrate") if kind.calibrates(given=given is not None) else nullcontext()
    try:
        with calibrating:
            gathered = kind.gather(context, given)
        with run.timed("decide"):
            first = distributed.rank() == 0
            chosen = kind.decide(context, gathered) if given is None and first else given
            decision = distributed.agreed(chosen)
            edit = kind.edit(context, decision, gathered)
    except BudgetError as error:
        raise BudgetError(f"steps.{number}: {error}") from None
    if not first:
        if edit.collective and place is not None:
            edit.produce(_drop)
        return
    planned = described(run, entry.name, decision, edit)
    if given is None:
        _tell(number, edit)
    run.steps.append(planned)
    run.tally.add(run.source.graph, edit.kept)
    if place is not None:
        with run.timed(kind.writing):
            place.write(run.source, edit)
        with run.timed("verify"):
            planned.notes.append(verify(run.source, edit, place))


def described(run: Run, kind: str, decision: object, edit: Edit) -> PlannedStep:
    """The step as the plan has it: sizes before and after, config edits, who opens the result."""
    source, graph = run.source, run.source.graph
    written = sum(prod(shape) * dtype.itemsize for _, dtype, shape in edit.specs)
    after = run.size(graph, written, edit.kept)
    after["params"] += edit.parameters
    if edit.zeros:
        after["zeros"] = edit.zeros
    notes = [*graph.notes, *edit.notes]
    if dropped := source.weights.unexpected:
        notes.append(f"left out: {dropped[0]} and whatever else the model has no place for ({len(dropped)} tensors)")
    changed = {path: [old, new] for path, (old, new) in edit.changed.items()}
    before = run.size(graph, source.checkpoint.bytes)
    return PlannedStep(kind, decision, before, after, changed, dict(edit.opens_with), notes)  # pyright: ignore[reportArgumentType]


def _tell(number: int, edit: Edit) -> None:
    for note in edit.notes:
        detail(note)
    if edit.opens_with["remote_code"]:
        say(f"step {number + 1}: opens with {edit.opens_with['who']}")


def _drop(name: str, tensor: Tensor) -> None:
    """The first process alone writes."""
