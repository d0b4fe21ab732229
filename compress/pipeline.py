"""The story, in a straight line: read, trace, per step decide and cut, verify, report, and only then the folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress.calibrate.cache import Stats
from compress.checkpoint.open import Checkpoint, open_checkpoint
from compress.checkpoint.write import new_folder
from compress.console import say
from compress.decide import Decision, Model, decide
from compress.errors import BudgetError, InputError
from compress.measure import Measured, measure
from compress.plan import Plan, Step, read_plan
from compress.recipe import Recipe, parse_recipe, read_recipe
from compress.report import describe
from compress.surgery.cut import Cut, write
from compress.surgery.shape import Shape, find_shape, save_config
from compress.surgery.verify import verify

OWN_FILES = {"README.md", "recipe.yaml", "plan.json", "report.json", "report.html"}


@dataclass(frozen=True)
class Options:
    """What does not change the result's bits. `evaluate`: measure quality and latency before and after."""

    device: str = "cpu"
    revision: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    force: bool = False
    evaluate: bool = True

    def open(self, where: str) -> Checkpoint:
        return open_checkpoint(
            where,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
            allow_pickle=self.allow_pickle,
        )


@dataclass
class Run:
    """One run's progress: the steps cut so far, and how long each part took, in seconds."""

    source: Checkpoint
    model: Model
    original: Model
    steps: list[tuple[Cut, Shape]] = field(default_factory=list)
    worst: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def clock(self, part: str, start: float) -> None:
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


def run(
    recipe: str | Path | Recipe,
    model_in: str | Path,
    model_out: str | Path,
    *,
    overrides: Sequence[str] = (),
    options: Options | None = None,
) -> dict[str, Any]:
    """Compress `model_in` (a folder or a hub id) into the folder `model_out`; returns the report.

    `overrides` are `steps.0.remove=30%`. Raises InputError for a bad recipe, model or folder, ModelError where the
    model is not understood, BudgetError where the budget cannot be met, VerifyError where the result is not as planned.
    """
    options = options or Options()
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, overrides)
    target = _target(model_in, model_out)
    with new_folder(target, options.force) as work:
        return _execute(recipe, str(model_in), work, options, None)


def apply(plan: str | Path, model_in: str | Path, model_out: str | Path, *, options: Options | None = None) -> dict:
    """Carry out a plan: the same groups go, whatever the criteria would say today. Errors as for `run`.

    Raises InputError where the plan was made for another model.
    """
    options = options or Options()
    given = read_plan(Path(plan))
    recipe = parse_recipe(given.recipe, name=str(plan))
    target = _target(model_in, model_out)
    with new_folder(target, options.force) as work:
        return _execute(recipe, str(model_in), work, options, given)


def plan(
    recipe: str | Path | Recipe,
    model_in: str | Path,
    *,
    overrides: Sequence[str] = (),
    options: Options | None = None,
) -> Plan:
    """Every decision of a run, and who can open its result, before any weight is written. Errors as for `run`.

    Only a recipe of several steps writes: the later steps look at what the earlier ones left, in a scratch folder.
    """
    import tempfile

    options = options or Options()
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, overrides)
    state = _open(str(model_in), options)
    with tempfile.TemporaryDirectory(prefix="compress-") as scratch:
        for number, step in enumerate(recipe.steps):
            decision = decide(state.model, recipe, step, state.original.graph.parameters(), options.device)
            shape = find_shape(state.model, decision.cut, decision.mend, widths=step.widths)
            state.steps.append((decision.cut, shape))
            if number + 1 < len(recipe.steps):
                _advance(state, decision, shape, Path(scratch) / str(number), options)
    return describe_plan(state, recipe, str(model_in))


def _execute(recipe: Recipe, model_in: str, work: Path, options: Options, given: Plan | None) -> dict[str, Any]:
    state = _open(model_in, options)
    if given is not None and given.digest != state.source.digest:
        raise InputError(f"the plan was made for another model ({given.model}); write it anew with `compress plan`")
    for number, step in enumerate(recipe.steps):
        start = time.perf_counter()
        if given is None:
            decision = decide(state.model, recipe, step, state.original.graph.parameters(), options.device)
        else:
            decision = _replayed(state.model, recipe, step, given.steps[number], options)
        shape = find_shape(state.model, decision.cut, decision.mend, widths=step.widths)
        state.clock("deciding", start)
        state.steps.append((decision.cut, shape))
        last = number + 1 == len(recipe.steps)
        folder = work if last else work / f".step-{number}"
        _advance(state, decision, shape, folder, options, last=last)
    for number in range(len(recipe.steps) - 1):
        shutil.rmtree(work / f".step-{number}")
    start = time.perf_counter()
    before, after = _measured(recipe, state, work, options)
    state.clock("evaluating", start)
    made = describe_plan(state, recipe, model_in)
    made.write(work / "plan.json")
    (work / "recipe.yaml").write_text(recipe.dump(), encoding="utf-8")
    return describe(work, made, recipe, state, before, after)


def _open(model_in: str, options: Options) -> Run:
    start = time.perf_counter()
    source = options.open(model_in)
    model = Model.of(source)
    state = Run(source, model, model)
    state.clock("tracing", start)
    for note in model.graph.notes:
        say(f"note: {note}")
    return state


def _advance(
    state: Run, decision: Decision, shape: Shape, folder: Path, options: Options, *, last: bool = False
) -> None:
    """Cut the present model into `folder`, verify it, and go on from there."""
    start = time.perf_counter()
    folder.mkdir(exist_ok=True)
    source = state.model.checkpoint
    names = write(
        decision.cut,
        source,
        state.model.weights,
        folder,
        mend=decision.mend,
        stats=decision.stats,
        zeros=shape.zeros,
    )
    _copy_side_files(source, folder)
    save_config(shape, folder)
    state.clock("cutting", start)
    start = time.perf_counter()
    worst = verify(source, decision.cut, folder, names, trust=shape.remote)
    if worst is not None:
        state.worst = max(worst, state.worst or 0.0)
    state.clock("verifying", start)
    if not last:
        state.model = Model.of(open_checkpoint(str(folder), trust_remote_code=shape.remote or source.trust_remote_code))


def _copy_side_files(source: Checkpoint, folder: Path) -> None:
    for file in source.side_files:
        place = folder / file.relative_to(source.folder)
        if place.name not in OWN_FILES:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def _replayed(model: Model, recipe: Recipe, step: Any, given: Step, options: Options) -> Decision:
    """The decision that a plan holds; the repair's statistics are gathered anew (or found on disk)."""
    from compress.decide import repair_for

    kept: dict[str, np.ndarray] = {}
    for name, indices in given.kept.items():
        family = model.graph.families.get(name)
        if family is None or family.size != given.sizes.get(name) or any(not 0 <= i < family.size for i in indices):
            raise InputError(f"the plan names {name}, which this model has not in that size; write it anew")
        kept[name] = np.isin(np.arange(family.size), indices)
    mend, stats = repair_for(model, recipe, step, kept, options.device)
    return Decision(Cut(model.graph, kept), mend, stats)


def _target(model_in: str | Path, model_out: str | Path) -> Path:
    target = Path(model_out)
    source = Path(model_in)
    if source.exists() and target.exists() and source.resolve() == target.resolve():
        raise InputError(f"{target}: is the input folder itself; name another output")
    return target


def _measured(recipe: Recipe, state: Run, work: Path, options: Options) -> tuple[Measured, Measured]:
    cut, shape = state.steps[-1]
    written = open_checkpoint(str(work), trust_remote_code=shape.remote)
    return measure(state.original, written, recipe, evaluate=options.evaluate, device=options.device)


def describe_plan(state: Run, recipe: Recipe, model_in: str) -> Plan:
    """The plan of the steps decided so far."""
    length = recipe.calibrate.length
    last_cut, last_shape = state.steps[-1]
    graph, first = state.original.graph, state.original
    steps = tuple(
        Step(
            {name: np.flatnonzero(mask).tolist() for name, mask in cut.kept.items()},
            {name: len(mask) for name, mask in cut.kept.items()},
            dict(shape.edits),
        )
        for cut, shape in state.steps
    )
    params = graph.parameters()
    left = last_cut.graph.parameters(last_cut.kept) + last_shape.added
    if left >= params:
        raise BudgetError(f"nothing was removed: {left:,} of {params:,} parameters are left; ask for more")
    notes = list(dict.fromkeys([*graph.notes, *(note for _, shape in state.steps for note in shape.notes)]))
    size = first.checkpoint.bytes
    return Plan(
        model=model_in,
        digest=first.checkpoint.digest,
        recipe=recipe.dump(),
        steps=steps,
        opens_with="remote code" if last_shape.remote else "transformers",
        how=last_shape.how,
        before={"params": params, "flops": graph.flops(sequence=length), "bytes": size},
        after={
            "params": left,
            "flops": last_cut.graph.flops(last_cut.kept, sequence=length),
            "bytes": int(size * left / params),
        },
        notes=tuple(notes),
    )


def families_left(steps: Sequence[tuple[Cut, Shape]], original: Mapping[str, Any]) -> dict[str, int]:
    """How many groups of each of the original model's families are left after all steps.

    A later step names a family after renumbering: its present size counts.
    """
    left = {name: family.size for name, family in original.items()}
    for cut, _ in steps:
        for name, mask in cut.kept.items():
            if name in left:
                left[name] = int(mask.sum())
    return left


__all__ = ["Options", "Stats", "apply", "plan", "run", "torch"]
