"""The report of a run that has come to its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compress.evaluate.before_after import Evaluation
from compress.execution.document import Plan
from compress.execution.run import Run
from compress.metrics.kind import Quality
from compress.report import Report, environment, figures
from compress.report.document import FamilyRow, Figures, SaliencyRow, quality


def report_of(run: Run, made: Plan, found: Evaluation, out: Path) -> Report:
    """What became of the model: the plan's figures, and what was measured."""
    before, after, record = made.before, made.after, found.quality or Quality()
    opens = made.steps[-1].opens_with
    report = Report(
        model=run.model,
        recipe={"about": run.recipe.about, "text": made.recipe},
        before=_figures(before, latency=found.latency_before, record=record.dense_record),
        after=_figures(after, latency=found.latency_after, record=record.record),
        families=[FamilyRow(**row) for row in run.tally.rows()],  # pyright: ignore[reportArgumentType]
        opens_with=opens["who"],
        load=opens["how"].format(folder=str(out)),
        notes=[*made.notes, *found.notes, *run.first.left_behind],
        environment=environment(),
        seconds={name: round(value, 3) for name, value in run.seconds.items()},
        changes={name: asdict(change) for name, change in found.changes.items()},
    )
    if found.quality is not None:
        report["quality"] = quality(run.first.task.hub_task, found.quality.figures)
    if found.text is not None:
        report["text"] = found.text
    if found.continuations:
        report["generated"] = [asdict(one) for one in found.continuations]
    if found.visual_tokens is not None:
        report["visual_tokens"] = found.visual_tokens.written()
    if saliency := list(_saliency(made)):
        report["saliency"] = saliency
    return report


def _saliency(made: Plan) -> Iterator[SaliencyRow]:
    """What share of its saliency each family kept, in the steps that know it."""
    for number, step in enumerate(made.steps, 1):
        for name, found in step.decision.get("saliency", {}).items():
            yield SaliencyRow(step=number, kind=name.rpartition(".")[2], layer=found["layer"], kept=found["kept"])


def _figures(counted: Mapping[str, int], **measured: Any) -> Figures:
    return figures(**counted, **measured)
