"""The pipeline: open, trace, each step (collect, score, allocate, cut, verify), evaluate, export, report, rename."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compress.calibrate import distributed
from compress.checkpoint.open import Checkpoint, open_checkpoint
from compress.checkpoint.ours import mark
from compress.checkpoint.write import check_apart, new_folder
from compress.console import detail, say, warn
from compress.errors import BudgetError, InputError
from compress.evaluate.before_after import Evaluation, Evaluator
from compress.evaluate.budget import Budget, quick
from compress.evaluate.ort_latency import Speeds
from compress.execution.document import Plan, read_plan
from compress.execution.resume import finished_steps, keep, restore
from compress.execution.stages import Stages
from compress.execution.work import Options, Shared, Work, open_input
from compress.export.onnx import export_onnx, speeds
from compress.model.source import Source
from compress.onnx import FILE, Exported
from compress.recipe.part import Part
from compress.recipe.read import parse_recipe, read_recipe
from compress.recipe.schema import Recipe
from compress.report import Report, environment, figures, write_card, write_report
from compress.report.report import FamilyRow, Figures
from compress.runtime.config import runtime_rules
from compress.steps.delta.extract import extract
from compress.steps.delta.format import Description
from compress.steps.kinds import STEPS, stages

__all__ = ["Options", "apply", "plan", "run", "share"]


def run(
    recipe: str | Path | Recipe,
    model_in: str | Path,
    model_out: str | Path,
    options: Options | None = None,
    shared: Shared | None = None,
) -> Report | Description | None:
    """Prune the model `model_in` (a folder or hub id) by a recipe into the new folder `model_out`.

    A recipe that prunes a delta writes one there, and returns its description; any other writes a model.

    `shared` is what other recipes have found out about the same model already.

    Raises compress.errors.CompressError for whatever the user can mend; then nothing is left at `model_out`, but after
    a VerifyError, which leaves `<model_out>.partial`. Returns None in all but the first process of several.
    """
    read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    if read.delta is not None:
        return extract(read, model_in, Path(model_out), options or Options())
    return _write(read, model_in, Path(model_out), options or Options(), None, shared)


def plan(recipe: str | Path | Recipe, model_in: str | Path, options: Options | None = None) -> Plan:
    """Decide everything and write nothing; the models between steps lie in a temporary folder meanwhile."""
    read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    if read.delta is not None:
        raise InputError("steps.0: `prune: delta` has no plan, its decisions are as many as weights; run the recipe")
    work = _work(read, model_in, options or Options(), None, stages(read, written=False))
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        for number in range(len(read.steps)):
            last = number + 1 == len(read.steps)
            between = None if last else Path(folder) / f"step-{number + 1}"
            if between is not None:
                between.mkdir()
            _step(work, number, between)
    return work.plan()


def apply(
    plan: str | Path | Plan, model_in: str | Path, model_out: str | Path, options: Options | None = None
) -> Report | None:
    """Execute a plan as it stands on the model that it was made for. Raises InputError for another model."""
    given = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    recipe = parse_recipe(given.recipe, name="the plan's recipe")
    return _write(recipe, model_in, Path(model_out), options or Options(), given)


def share(model_in: str | Path, options: Options, recipes: Sequence[Recipe]) -> Shared:
    """What the `recipes` on one model have in common, found out once."""
    source, evaluator = Source.of(_opened(model_in, options)), None
    if options.evaluate:
        evaluator = _evaluator(source, options, [recipe.calibrate.data for recipe in recipes], 0)
    return Shared(source, evaluator, max(recipe.calibrate.length for recipe in recipes))


def _evaluator(source: Source, options: Options, calibrated: Sequence[Part | str | None], seed: int) -> Evaluator:
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


def _work(
    recipe: Recipe,
    model_in: str | Path,
    options: Options,
    given: Plan | None,
    course: Stages,
    shared: Shared | None = None,
) -> Work:
    with course("read"):
        checkpoint = shared.source.checkpoint if shared else _opened(model_in, options)
    if given is not None and given.digest != checkpoint.digest:
        raise InputError(f"{model_in}: not the model of the plan, which was made for {given.model}; plan anew")
    if rules := runtime_rules(checkpoint.config, str(checkpoint.folder / "config.json")):
        kinds = ", ".join(asked.kind for asked in rules)
        raise InputError(
            f"{model_in}/config.json: has runtime rules ({kinds}) that hold for these very weights; prune the model "
            f"that it was made from"
        )
    with course("read"):
        source = shared.source if shared else Source.of(checkpoint)
    recipe = recipe.on(source.inputs.data)
    return Work(recipe, str(model_in), options, source, given, course, shared.tokens if shared else None)


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
        return _help(recipe, model_in, options, given)
    hidden = new_folder(out, force=options.force, inputs=[model_in], resume=options.resume)
    with finished_steps(out) as between, hidden as folder:
        start = time.perf_counter()
        course = stages(recipe, given, written=True, read=shared is None, evaluated=bool(options.evaluate))
        work = _work(recipe, model_in, options, given, course, shared)
        check_apart(out, [work.first.checkpoint.folder])  # of a hub id it is known only now
        for note in work.first.left_behind:
            say(note)
        if work.options.evaluate and (said := work.first.inputs.warning(work.first.checkpoint)):
            warn(said)
        with work.first.checkpoint.unchanged():
            report = _carry_out(work, folder, between, out, shared, start)
    return report


def _carry_out(work: Work, folder: Path, between: Path, out: Path, shared: Shared | None, start: float) -> Report:
    """Every step, then what is measured and said of the result; all of it into `folder`, which becomes `out`.

    The models of all steps but the last lie in `between`, from where an interrupted run goes on.
    """
    steps = len(work.recipe.steps)
    done = restore(work, between, out) if work.options.resume else 0
    distributed.agreed((done, str(between / f"step-{done}")))
    if done:
        work.open(between / f"step-{done}")
    for number in range(done, steps):
        last = number + 1 == steps
        place = folder if last else between / f"step-{number + 1}"
        place.mkdir(parents=True, exist_ok=True)
        _step(work, number, place)
        if not last:
            keep(work, between)
    distributed.agreed(None)  # until here the others read what is in the temporary folders
    seconds = None if work.options.evaluate == "full" else quick(time.perf_counter() - start)
    with work.timed("evaluate"):
        found = _evaluate(work, folder, shared, seconds)
    with work.timed("export"):
        exported, in_ort = _export(work, folder, found, seconds)
    made = work.plan()
    work.seconds["total"] = time.perf_counter() - start
    report = _report(work, made, found, out, in_ort)
    if exported is not None:
        report["onnx"] = exported.dump()
    with work.stages("report"):
        (folder / "plan.json").write_text(made.dump(), encoding="utf-8")
        (folder / "recipe.yaml").write_text(made.recipe, encoding="utf-8")
        write_report(folder, report)
        write_card(folder, report, work.first.checkpoint.folder / "README.md")
    return report


def _evaluate(work: Work, folder: Path, shared: Shared | None, seconds: float | None) -> Evaluation:
    """The model in `folder` beside the dense one, in about so many `seconds`."""
    if not work.options.evaluate:
        return Evaluation()
    evaluator = shared.evaluator if shared is not None else None
    if evaluator is None:
        evaluator = _evaluator(work.first, work.options, [work.recipe.calibrate.data], work.recipe.seed)
    return evaluator(folder, seconds)


def _export(
    work: Work, folder: Path, found: Evaluation, seconds: float | None
) -> tuple[Exported | None, Speeds | None]:
    """The exports that the recipe asks for, inside `folder`; where figures are wanted, their speed beside the dense
    model's, if what the evaluation has left of its `seconds` is enough to export that one too."""
    if work.recipe.export is None:
        return None, None
    settings, place, options = work.recipe.export.onnx, folder / "onnx", work.options
    place.mkdir()
    start = time.perf_counter()
    made = export_onnx(open_checkpoint(folder, trust_remote_code=options.trust_remote_code), place, settings)
    mark(place)  # `compress export` may write it anew
    if not (options.evaluate and options.latency):
        return made, None
    took = time.perf_counter() - start
    budget = Budget(None if seconds is None else seconds - work.seconds["evaluate"])
    timed = speeds(work.first.checkpoint, place / FILE, settings, budget) if took < budget.left else None
    if timed is None:
        found.notes.append(
            "latency in ONNX Runtime not measured: the dense model is too large to be exported for it, or that takes "
            "too long (`--evaluate full` takes the time)"
        )
        return made, None
    found.changes.update(timed.changes)
    return made, timed


def _step(work: Work, number: int, folder: Path | None) -> None:
    """Decide one step and, with a folder, execute it there and go on from what was written."""
    step, given = work.recipe.steps[number], work.given and work.given.steps[number]
    with work.source.checkpoint.unchanged():
        try:
            work.steps.append(STEPS[type(step)].execute(work, step, given, folder))
        except BudgetError as error:
            raise BudgetError(f"steps.{number}: {error}") from None
    if folder is not None and number + 1 < len(work.recipe.steps):
        distributed.agreed(str(folder))
        work.open(folder)


def _help(recipe: Recipe, model_in: str | Path, options: Options, given: Plan | None) -> None:
    """The other processes of a distributed run calibrate along, and write nothing."""
    work = _work(recipe, model_in, options, given, Stages())
    done, place = distributed.agreed(None)
    if done:
        work.open(place)
    for number, step in list(enumerate(recipe.steps))[done:]:
        with work.source.checkpoint.unchanged():
            STEPS[type(step)].assist(work, step, given and given.steps[number])
        if number + 1 < len(recipe.steps):
            work.open(distributed.agreed(None))
    distributed.agreed(None)


def _report(work: Work, made: Plan, found: Evaluation, out: Path, in_ort: Speeds | None) -> Report:
    before_ort, after_ort = (in_ort.before, in_ort.after) if in_ort is not None else (None, None)
    before, after = made.before, made.after
    opens = made.steps[-1].opens_with
    report = Report(
        model=work.model,
        recipe={"about": work.recipe.about, "text": made.recipe},
        before=_figures(before, latency=found.latency_before, onnx=before_ort, perplexity=found.perplexity_before),
        after=_figures(
            after,
            latency=found.latency_after,
            onnx=after_ort,
            perplexity=found.perplexity_after,
            similarity=found.similarity,
        ),
        families=[FamilyRow(**row) for row in work.tally.rows()],  # pyright: ignore[reportArgumentType]
        opens_with=opens["who"],
        load=opens["how"].format(folder=str(out)),
        notes=[*made.notes, *found.notes, *work.first.left_behind],
        environment=environment(),
        seconds={name: round(value, 3) for name, value in work.seconds.items()},
        changes={name: asdict(change) for name, change in found.changes.items()},
    )
    if found.text is not None:
        report["text"] = found.text
    return report


def _figures(counted: Mapping[str, int], **measured: Any) -> Figures:
    return figures(**counted, **measured)
