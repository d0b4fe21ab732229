"""The pipeline: open, trace, and for each step collect, score, allocate, cut, verify; then evaluate, report, rename."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress.calibrate import distributed
from compress.checkpoint.open import open_checkpoint
from compress.checkpoint.write import new_folder
from compress.console import detail, say
from compress.decide import Original, adds_bias, decide, families_of, gather, in_sequence, mending
from compress.errors import InputError
from compress.evaluate.before_after import Evaluation, evaluate
from compress.export import Report, environment, figures, write_card, write_report
from compress.export.report import FamilyRow, Figures
from compress.plan import Plan, Step, indices, read_plan
from compress.recipe.read import parse_recipe, read_recipe
from compress.recipe.schema import Prune, Recipe
from compress.surgery.cut import cut, output_specs
from compress.surgery.opening import Opening, find_opening
from compress.surgery.source import Source
from compress.surgery.verify import verify
from compress.tally import Tally

Kept = dict[str, np.ndarray]


@dataclass(frozen=True)
class Options:
    """What the command line may say beside the recipe. `device` is a torch device or `auto`."""

    device: str = "auto"
    force: bool = False
    evaluate: bool = True
    trust_remote_code: bool = False
    allow_pickle: bool = False
    revision: str | None = None

    @property
    def where(self) -> str:
        """The device to compute on."""
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"--device {self.device}: not usable here ({reason}); take auto or cpu") from None
        return self.device


@dataclass
class Work:
    """One run in progress."""

    recipe: Recipe
    model: str
    options: Options
    source: Source
    given: Plan | None = None
    steps: list[Step] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first = self.source
        self.original = Original(self.source.graph, self.options.where, self.recipe.calibrate.length)
        self.tally = Tally(self.source.graph)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def step(self, number: int, folder: Path | None) -> None:
        """Decide one step and, with a folder, execute it there and go on from what was written."""
        step, source = self.recipe.steps[number], self.source
        families = families_of(source.graph, step)
        given = None if self.given is None else self.given.steps[number].masks(source.graph)
        if step.propagate == "pruned":
            with self.timed("calibrate"):
                kept, stats = in_sequence(source, self.recipe, step, families, self.options.where, given)
        else:
            with self.timed("calibrate"):
                stats = gather(source, self.recipe, step, families, self.options.where, decide=given is None)
            with self.timed("decide"):
                kept = given or decide(source, self.recipe, step, families, stats, self.original)
        with self.timed("decide"):
            opening = find_opening(source, kept, adds_bias=adds_bias(step), widths=step.widths)
        made = self._described(step, kept, opening)
        self.steps.append(made)
        self.tally.add(source.graph, kept)
        if self.given is None:
            for note in opening.notes:
                detail(note)
            if opening.remote_code:
                say(f"step {number + 1}: opens with {opening.who}")
        if folder is None:
            return
        with self.timed("cut"):
            cut(source, kept, opening, folder, mend=mending(step, stats))
        with self.timed("verify"):
            made.notes.append(verify(source, kept, opening, folder, mended=step.repair is not None))
        if number + 1 < len(self.recipe.steps):
            distributed.agreed(str(folder))
            checkpoint = open_checkpoint(folder, trust_remote_code=self.options.trust_remote_code)
            self.source = Source.of(checkpoint)

    def plan(self) -> Plan:
        return Plan(self.model, self.first.checkpoint.digest, self.recipe.dump(), self.steps)

    def _described(self, step: Prune, kept: Kept, opening: Opening) -> Step:
        graph, tokens = self.source.graph, self.original.tokens
        written = sum(prod(shape) * dtype.itemsize for _, dtype, shape in output_specs(self.source, kept, opening))
        before = {
            "params": graph.parameters(),
            "flops": graph.flops(sequence=tokens),
            "bytes": self.source.checkpoint.bytes,
            "flops_length": tokens,
        }
        added = sum(prod(shape) for shape in (*opening.biases.values(), *opening.zeros.values()))
        after = {
            "params": graph.parameters(kept) + added,
            "flops": graph.flops(kept, sequence=tokens),
            "bytes": written,
            "flops_length": tokens,
        }
        opens = {
            "transformers": True,
            "remote_code": opening.remote_code,
            "who": opening.who,
            "how": opening.how,
        }
        edits = {path: [old, new] for path, (old, new) in opening.edits.items()}
        dropped = self.source.weights.unexpected
        notes = [*graph.notes, *opening.notes]
        if dropped:
            notes.append(
                f"left out: {dropped[0]} and whatever else the model has no place for ({len(dropped)} tensors)"
            )
        return Step(indices(kept), before, after, edits, opens, notes)


def run(
    recipe: str | Path | Recipe, model_in: str | Path, model_out: str | Path, options: Options | None = None
) -> Report | None:
    """Prune the model `model_in` (a folder or hub id) by a recipe into the new folder `model_out`.

    Raises compress.errors.CompressError for whatever the user can mend; then nothing is left at `model_out`, but after
    a VerifyError, which leaves `<model_out>.partial`. Returns None in all but the first process of several.
    """
    read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    return _write(read, model_in, Path(model_out), options or Options(), None)


def plan(recipe: str | Path | Recipe, model_in: str | Path, options: Options | None = None) -> Plan:
    """Decide everything and write nothing; the models between steps lie in a temporary folder meanwhile."""
    read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    work = _work(read, model_in, options or Options(), None)
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        for number in range(len(read.steps)):
            last = number + 1 == len(read.steps)
            between = None if last else Path(folder) / f"step-{number + 1}"
            if between is not None:
                between.mkdir()
            work.step(number, between)
    return work.plan()


def apply(
    plan: str | Path | Plan, model_in: str | Path, model_out: str | Path, options: Options | None = None
) -> Report | None:
    """Execute a plan as it stands on the model that it was made for. Raises InputError for another model."""
    given = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    recipe = parse_recipe(given.recipe, name="the plan's recipe")
    return _write(recipe, model_in, Path(model_out), options or Options(), given)


def _work(recipe: Recipe, model_in: str | Path, options: Options, given: Plan | None) -> Work:
    checkpoint = open_checkpoint(
        model_in,
        revision=options.revision,
        trust_remote_code=options.trust_remote_code,
        allow_pickle=options.allow_pickle,
    )
    if given is not None and given.digest != checkpoint.digest:
        raise InputError(f"{model_in}: not the model of the plan, which was made for {given.model}; plan anew")
    return Work(recipe, str(model_in), options, Source.of(checkpoint), given)


def _write(recipe: Recipe, model_in: str | Path, out: Path, options: Options, given: Plan | None) -> Report | None:
    distributed.start()
    if distributed.rank() > 0:
        return _help(recipe, model_in, options, given)
    with new_folder(out, force=options.force) as folder:
        start = time.perf_counter()
        work = _work(recipe, model_in, options, given)
        for number in range(len(recipe.steps)):
            last = number + 1 == len(recipe.steps)
            place = folder if last else folder / f".step-{number + 1}"
            place.mkdir(exist_ok=True)
            work.step(number, place)
            if number:
                shutil.rmtree(folder / f".step-{number}")
        distributed.agreed(None)  # until here the others read what is in the temporary folders
        with work.timed("evaluate"):
            found = evaluate(work.first.checkpoint, folder, recipe, options.where) if options.evaluate else Evaluation()
        made = work.plan()
        work.seconds["total"] = time.perf_counter() - start
        report = _report(work, made, found, out)
        (folder / "plan.json").write_text(made.dump(), encoding="utf-8")
        (folder / "recipe.yaml").write_text(made.recipe, encoding="utf-8")
        write_report(folder, report)
        write_card(folder, report, work.first.checkpoint.folder / "README.md")
    return report


def _help(recipe: Recipe, model_in: str | Path, options: Options, given: Plan | None) -> None:
    """The other processes of a distributed run calibrate along, and write nothing."""
    work = _work(recipe, model_in, options, given)
    for number, step in enumerate(recipe.steps):
        families = families_of(work.source.graph, step)
        if step.propagate == "pruned":
            masks = None if given is None else given.steps[number].masks(work.source.graph)
            in_sequence(work.source, recipe, step, families, options.where, masks)
        else:
            gather(work.source, recipe, step, families, options.where, decide=given is None)
        if number + 1 < len(recipe.steps):
            folder = distributed.agreed(None)
            work.source = Source.of(open_checkpoint(folder, trust_remote_code=options.trust_remote_code))
    distributed.agreed(None)


def _report(work: Work, made: Plan, found: Evaluation, out: Path) -> Report:
    before, after = made.before, made.after
    opens = made.steps[-1].opens_with
    return Report(
        model=work.model,
        recipe={"about": work.recipe.about, "text": made.recipe},
        before=_figures(before, latency=found.latency_before, perplexity=found.perplexity_before),
        after=_figures(
            after,
            latency=found.latency_after,
            perplexity=found.perplexity_after,
            similarity=found.similarity,
        ),
        families=[FamilyRow(**row) for row in work.tally.rows()],  # pyright: ignore[reportArgumentType]
        opens_with=opens["who"],
        load=opens["how"].format(folder=str(out)),
        notes=[*made.notes, *found.notes],
        environment=environment(),
        seconds={name: round(value, 3) for name, value in work.seconds.items()},
    )


def _figures(counted: Mapping[str, int], **measured: Any) -> Figures:
    return figures(**counted, **measured)
