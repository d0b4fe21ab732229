"""The pipeline of an .onnx file: open, trace, each step (collect, score, allocate, cut, verify), compare, rename."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from compress.calibrate.site import at_sites
from compress.checkpoint.target import hidden_name, placed
from compress.console import say
from compress.errors import InputError, VerifyError
from compress.evaluate.before_after import Evaluation
from compress.evaluate.budget import quick
from compress.evaluate.onnx_files import compare_files
from compress.execution.document import Plan
from compress.execution.run import Options, Run
from compress.files.onnx import SUFFIX, is_onnx
from compress.model.model import Model
from compress.onnx.agreement import check_agreement
from compress.onnx_model.architecture import OnnxArchitecture, open_onnx
from compress.onnx_model.inputs import ARRAYS, RANDOM, OnnxInputs
from compress.onnx_model.write import save_proto
from compress.recipe.read import read_recipe
from compress.recipe.schema import Recipe
from compress.registry import criteria
from compress.report import Report
from compress.report.of_run import report_of
from compress.score.score import statistics_of
from compress.steps.execute import execute
from compress.steps.kinds import given_plan, model_steps, stages
from compress.surgery.onnx_file import InOnnxFile

SAMPLES, LENGTH = 8, 128
"""What two files are compared on."""

__all__ = ["apply", "opened", "plan", "prune"]

opened = open_onnx


def prune(recipe: str | Path | Recipe, model: Path, out: Path, options: Options | None = None) -> Report:
    """Prune the graph in the .onnx file `model` by a recipe into the new file `out`, with its report beside it.

    Raises what `compress.pipeline.run` does, InputError too where a criterion reads gradients or `out` is no .onnx
    file. Nothing is left at `out` then; what a VerifyError is about stays as `<out>.partial`.
    """
    read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    return _write(read, model, out, options or Options(), None)


def apply(plan: str | Path | Plan, model: Path, out: Path, options: Options | None = None) -> Report:
    """Execute a plan as it stands on the file that it was made for. Raises InputError for another one."""
    recipe, given = given_plan(plan)
    return _write(recipe, model, out, options or Options(), given)


def plan(recipe: str | Path | Recipe, model: Path, options: Options | None = None) -> Plan:
    """Decide everything and write nothing."""
    read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    run = _begin(read, model, options or Options(), None)
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        for number in range(len(read.steps)):
            last = number + 1 == len(read.steps)
            _step(run, number, None if last else Path(folder) / f"step-{number + 1}{SUFFIX}")
    return run.plan()


def _begin(recipe: Recipe, model: Path, options: Options, given: Plan | None) -> Run:
    _refuse(recipe, options)
    course = stages(recipe, given, written=True, evaluated=bool(options.evaluate))
    with course("read"):
        checkpoint = open_onnx(model)
        if given is not None and given.digest != checkpoint.digest:
            raise InputError(f"{model}: not the model of the plan, which was made for {given.model}; plan anew")
        source = Model.of(checkpoint)
    for note in source.graph.notes:
        say(note)
    return Run(recipe, str(model), options, source, given, course)


def _refuse(recipe: Recipe, options: Options) -> None:
    """Raises InputError for what a file has no gradients for, or no place."""
    for name in ("resume", "include", "base", "revision"):
        if getattr(options, name):
            raise InputError(f"--{name}: means nothing for an .onnx file; leave it out")
    if recipe.export is not None:
        raise InputError("export: an .onnx file is exported already; leave it out")
    for number, kind in enumerate(model_steps(recipe)):
        by = getattr(kind.step, "by", None)
        if by is not None and (found := at_sites(statistics_of(criteria.get(by.name), by.arguments), backward=True)):
            raise InputError(
                f"steps.{number}.by: {by.name} reads gradients ({', '.join(found)}), and an .onnx file has no loss to "
                f"take them of; take magnitude, fluctuation or activation, or prune the model that it was exported from"
            )


def _write(recipe: Recipe, model: Path, out: Path, options: Options, given: Plan | None) -> Report:
    with _new_files(out, model, force=options.force) as folder:
        start = time.perf_counter()
        run = _begin(recipe, model, options, given)
        for number in range(len(recipe.steps)):
            last = number + 1 == len(recipe.steps)
            _step(run, number, folder / (out.name if last else f"step-{number + 1}{SUFFIX}"))
        found = Evaluation()
        if options.evaluate:
            with run.timed("evaluate"):
                found = _evaluated(run, model, folder / out.name, time.perf_counter() - start)
        made = run.plan()
        run.seconds["total"] = time.perf_counter() - start
        report = report_of(run, made, found, out)
        (folder / f"{out.stem}.plan.json").write_text(made.dump(), encoding="utf-8")
        text = json.dumps(report, indent=2, default=str, ensure_ascii=False)
        (folder / f"{out.stem}.report.json").write_text(text, encoding="utf-8")
        for unfinished in folder.glob("step-*"):
            unfinished.unlink()
    return report


def _step(run: Run, number: int, path: Path | None) -> None:
    """Decide one step and, with a path, write its result there, verify it in torch and in ONNX Runtime, and go on from
    it."""
    place = None if path is None else InOnnxFile(path)
    execute(run, number, place)
    if place is None or path is None:
        return
    with run.timed("verify"), tempfile.TemporaryDirectory(prefix="compress-") as folder:
        masked = Path(folder) / path.name
        save_proto(place.masked(run.source), masked, external=False)
        architecture = cast(OnnxArchitecture, run.source.checkpoint.architecture)
        run.steps[-1].notes.append(check_agreement(architecture, run.source.graph, place.kept, path, masked))
    if number + 1 < len(run.recipe.steps):
        run.source = Model.of(place.opened(run.source).checkpoint)


def _evaluated(run: Run, dense: Path, small: Path, spent: float) -> Evaluation:
    """Both files in ONNX Runtime, on what was calibrated on where that is given as arrays, else on random numbers."""
    inputs, calibrate = cast(OnnxInputs, run.first.inputs), run.recipe.calibrate
    given = isinstance(calibrate.data, str) and calibrate.data.endswith(ARRAYS)
    asked = calibrate if given else calibrate.model_copy(update={"data": RANDOM})
    asked = asked.model_copy(update={"samples": min(SAMPLES, asked.samples), "length": min(LENGTH, asked.length)})
    (batch, *_), _ = inputs.batches(asked, run.first.checkpoint, run.recipe.seed + 1)
    seconds = None if run.options.evaluate == "full" else quick(spent)
    named = str(calibrate.data) if given else "random numbers"
    return compare_files(dense, small, inputs, batch, named, timed=run.options.latency, seconds=seconds)


@contextmanager
def _new_files(out: Path, model: Path, *, force: bool) -> Iterator[Path]:
    """Yields a hidden folder beside `out` whose files get their places when the block ends, `out` the last.

    Raises InputError where they cannot be written.
    """
    if not is_onnx(out):
        raise InputError(f"{out}: the result of an .onnx file is one too; name it so: {out.name}{SUFFIX}")
    target = placed(out)
    if not target.parent.is_dir():
        raise InputError(f"{out}: its folder does not exist")
    if target.is_dir():
        raise InputError(f"{out}: is a folder; name a file in it")
    if target.exists() and model.exists() and target.samefile(model):
        raise InputError(f"{out}: is what is read; choose another name")
    if target.exists() and not force:
        raise InputError(f"{out}: exists; choose another name, or pass --force to replace it")
    work = target.with_name(hidden_name(target, os.getpid()))
    work.mkdir()
    try:
        yield work
        for file in sorted(work.iterdir(), key=lambda file: file.name == target.name):
            file.replace(target.parent / file.name)
    except VerifyError as error:
        if (work / target.name).exists():
            kept = target.with_name(f"{target.name}.partial")
            (work / target.name).replace(kept)
            raise VerifyError(f"{error}\nwhat was written is kept in {kept}") from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
