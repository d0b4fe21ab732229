"""The pipeline: open, trace, each step (collect, score, allocate, cut, verify), evaluate, export, report, rename."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.calibrate import distributed
from compress.checkpoint.open import Checkpoint, open_checkpoint
from compress.checkpoint.write import check_apart, new_folder
from compress.console import detail, say, warn
from compress.errors import InputError
from compress.evaluate.before_after import Evaluation, Evaluator
from compress.evaluate.budget import quick
from compress.execution.document import Plan, read_plan
from compress.execution.resume import finished_steps, keep, restore
from compress.execution.run import Options, Run, Shared, open_input, refuse_rules
from compress.execution.stages import Stages
from compress.export.write import write_exports
from compress.model.model import Model
from compress.recipe.part import Part
from compress.recipe.read import parse_recipe, read_recipe
from compress.recipe.schema import Recipe
from compress.report import Report, write_card, write_report
from compress.report.of_run import report_of
from compress.steps.execute import execute
from compress.steps.foresee import foreseen
from compress.steps.kinds import artifact_step, check_plan, stages
from compress.surgery.rewrite import InFolder

__all__ = ["Options", "apply", "plan", "run", "share"]


def run(
    recipe: str | Path | Recipe,
    model_in: str | Path,
    model_out: str | Path,
    options: Options | None = None,
    shared: Shared | None = None,
) -> Any:
    """Prune the model `model_in` (a folder or hub id) by a recipe into the new folder `model_out`.

    Returns the report. A recipe whose result is no model writes and returns what its step says (`prune: delta`: the
    delta and its description).

    `shared` is what other recipes have found out about the same model already.

    Raises compress.errors.CompressError for whatever the user can mend; then nothing is left at `model_out`, but after
    a VerifyError, which leaves `<model_out>.partial`. Returns None in all but the first process of several.
    """
    read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    if (artifact := artifact_step(read)) is not None:
        return artifact.write(read, model_in, Path(model_out), options or Options())
    return _write(read, model_in, Path(model_out), options or Options(), None, shared)


def plan(
    recipe: str | Path | Recipe,
    model_in: str | Path,
    options: Options | None = None,
    *,
    config_only: bool | None = None,
) -> Plan:
    """Decide everything and write nothing; the models between steps lie in a temporary folder meanwhile.

    With `config_only` no weights are read or fetched, and the plan, which cannot be executed, has what is known without
    them. By default that is so for a folder without weights, and for a model of the hub where the recipe reads none.
    Raises ConfigAloneError where a config is not enough.
    """
    read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    if (artifact := artifact_step(read)) is not None:
        raise InputError(f"steps.0: `{artifact.title()}` has no plan: {artifact.unplanned}")
    if (found := foreseen(read, model_in, options or Options(), config_only)) is not None:
        return found
    run = _begin(read, model_in, options or Options(), None, stages(read, written=False))
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        for number in range(len(read.steps)):
            last = number + 1 == len(read.steps)
            between = None if last else Path(folder) / f"step-{number + 1}"
            if between is not None:
                between.mkdir()
            _step(run, number, between)
    return run.plan()


def apply(
    plan: str | Path | Plan, model_in: str | Path, model_out: str | Path, options: Options | None = None
) -> Report | None:
    """Execute a plan as it stands on the model that it was made for. Raises InputError for another model."""
    given = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    recipe = parse_recipe(given.recipe, name="the plan's recipe")
    if given.config_only:
        raise InputError(
            f"{'the plan' if given is plan else plan}: made from a config alone, so it does not say what goes; run the "
            f"recipe, or plan anew with a model that has weights (--no-config-only fetches them)"
        )
    check_plan(recipe, given)
    return _write(recipe, model_in, Path(model_out), options or Options(), given)


def share(model_in: str | Path, options: Options, recipes: Sequence[Recipe]) -> Shared:
    """What the `recipes` on one model have in common, found out once."""
    source, evaluator = Model.of(_opened(model_in, options)), None
    if options.evaluate:
        evaluator = _evaluator(source, options, [recipe.calibrate.data for recipe in recipes], 0)
    return Shared(source, evaluator, max(recipe.calibrate.length for recipe in recipes))


def _evaluator(source: Model, options: Options, calibrated: Sequence[Part | str | None], seed: int) -> Evaluator:
    """It measures on a text of another source than any that was calibrated on."""
    data = source.inputs.held_out(calibrated)
    return Evaluator(source, seed=seed, device=options.where, timed=options.latency, data=data)


def _opened(model_in: str | Path, options: Options) -> Checkpoint:
    """The checkpoint, its digest known: by it statistics and plans are told apart."""
    checkpoint = open_input(model_in, options)
    if distributed.rank() == 0:
        detail(f"{model_in}: its digest is {checkpoint.digest}")
    distributed.agreed(None)  # the others find it remembered, and need not read all weights too
    return checkpoint


def _begin(
    recipe: Recipe,
    model_in: str | Path,
    options: Options,
    given: Plan | None,
    course: Stages,
    shared: Shared | None = None,
) -> Run:
    with course("read"):
        checkpoint = shared.source.checkpoint if shared else _opened(model_in, options)
    if given is not None and given.digest != checkpoint.digest:
        raise InputError(f"{model_in}: not the model of the plan, which was made for {given.model}; plan anew")
    refuse_rules(checkpoint, str(model_in))
    with course("read"):
        source = shared.source if shared else Model.of(checkpoint)
    recipe = recipe.on(source.inputs.data)
    return Run(recipe, str(model_in), options, source, given, course, shared.tokens if shared else None)


def _write(
    recipe: Recipe,
    model_in: str | Path,
    out: Path,
    options: Options,
    given: Plan | None,
    shared: Shared | None = None,
) -> Report | None:
    distributed.start()
    if distributed.rank() > 0:
        return _run_worker(recipe, model_in, options, given)
    hidden = new_folder(out, force=options.force, inputs=[model_in], resume=options.resume)
    with finished_steps(out) as between, hidden as folder:
        start = time.perf_counter()
        course = stages(recipe, given, written=True, read=shared is None, evaluated=bool(options.evaluate))
        run = _begin(recipe, model_in, options, given, course, shared)
        check_apart(out, [run.first.checkpoint.folder])  # of a hub id it is known only now
        for note in run.first.left_behind:
            say(note)
        if run.options.evaluate and (said := run.first.inputs.warning(run.first.checkpoint)):
            warn(said)
        with run.first.checkpoint.unchanged():
            report = _carry_out(run, folder, between, out, shared, start)
    return report


def _carry_out(run: Run, folder: Path, between: Path, out: Path, shared: Shared | None, start: float) -> Report:
    """Every step, then what is measured and said of the result; all of it into `folder`, which becomes `out`.

    The models of all steps but the last lie in `between`, from where an interrupted run goes on.
    """
    steps = len(run.recipe.steps)
    done = restore(run, between, out) if run.options.resume else 0
    distributed.agreed((done, between))
    if done:
        run.open(between / f"step-{done}")
    for number in range(done, steps):
        last = number + 1 == steps
        place = folder if last else between / f"step-{number + 1}"
        place.mkdir(parents=True, exist_ok=True)
        _step(run, number, place)
        if not last:
            keep(run, between)
    distributed.agreed(None)  # until here the others read what is in the temporary folders
    seconds = None if run.options.evaluate == "full" else quick(time.perf_counter() - start)
    with run.timed("evaluate"):
        found = _evaluate(run, folder, shared, seconds)
    with run.timed("export"):
        exports = _export(run, folder, found, seconds)
    made = run.plan()
    run.seconds["total"] = time.perf_counter() - start
    report = report_of(run, made, found, out)
    if exports:
        report["exports"] = exports
    with run.stages("report"):
        (folder / "plan.json").write_text(made.dump(), encoding="utf-8")
        (folder / "recipe.yaml").write_text(made.recipe, encoding="utf-8")
        write_report(folder, report, found.visual_tokens.traces if found.visual_tokens is not None else ())
        write_card(folder, report, run.first.checkpoint.folder / "README.md")
    return report


def _evaluate(run: Run, folder: Path, shared: Shared | None, seconds: float | None) -> Evaluation:
    """The model in `folder` beside the dense one, in about so many `seconds`."""
    if not run.options.evaluate:
        return Evaluation()
    evaluator = shared.evaluator if shared is not None else None
    if evaluator is None:
        evaluator = _evaluator(run.first, run.options, [run.recipe.calibrate.data], run.recipe.seed)
    return evaluator(folder, seconds)


def _export(run: Run, folder: Path, found: Evaluation, seconds: float | None) -> dict[str, Any]:
    """The exports that the recipe names, inside `folder`; where figures are wanted, their speed beside the dense
    model's in what the evaluation has left of its `seconds`."""
    if run.recipe.export is None:
        return {}
    options = run.options
    checkpoint = open_checkpoint(folder, trust_remote_code=options.trust_remote_code)
    dense = run.first if options.evaluate and options.latency else None
    left = None if seconds is None else seconds - run.seconds.get("evaluate", 0.0)
    exports, notes = write_exports(run.recipe.export, checkpoint, folder, dense, left)
    found.notes.extend(notes)
    return exports


def _step(run: Run, number: int, folder: Path | None) -> None:
    """Decide one step and, with a folder, execute it there and go on from what was written."""
    with run.source.checkpoint.unchanged():
        execute(run, number, None if folder is None else InFolder(folder))
    if folder is not None and number + 1 < len(run.recipe.steps):
        run.open(distributed.agreed(str(folder)))


def _run_worker(recipe: Recipe, model_in: str | Path, options: Options, given: Plan | None) -> None:
    """What a process of a distributed run above the first does: it calibrates along, and writes nothing."""
    run = _begin(recipe, model_in, options, given, Stages())
    done, between = distributed.agreed(None)
    if done:
        run.open(between / f"step-{done}")
    for number in range(done, len(recipe.steps)):
        _step(run, number, between)
    distributed.agreed(None)
