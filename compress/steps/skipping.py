"""Letting tokens skip experts: thresholds from the router's weights, written into the config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from compress.calibrate.collect import collect
from compress.errors import BudgetError, InputError
from compress.execution.document import Step
from compress.execution.work import Work
from compress.graph.families import Graph
from compress.graph.routers import experts_module
from compress.output_format.find import find_opening
from compress.recipe.skipping import SkipExperts
from compress.runtime.config import KEY, written
from compress.score.views import Stats
from compress.steps.units.decide import calibration
from compress.surgery.cut import cut
from compress.surgery.verify.run import verify


def execute(work: Work, step: SkipExperts, given: Step | None, folder: Path | None) -> Step:
    """Find the thresholds, or take what a plan has `given`; with a folder write the same weights and the config there.

    Raises InputError for a model without experts or whose router picks one only.
    """
    source = work.source
    with work.timed("calibrate"):
        thresholds = given.thresholds if given is not None else _thresholds(step, _gathered(work, step))
    opening = find_opening(source, {})
    config = written([{"kind": "skip_experts", "thresholds": thresholds, "protect": step.protect}])
    opening = replace(opening, config={**opening.config, KEY: config}, edits={KEY: (None, config)})
    size = work.size(source.graph, source.checkpoint.bytes)
    note = (
        f"of the experts' visits but each token's first, {step.remove:.0%} are skipped where "
        "`compress.runtime.attach(model)` was called, as it is for the figures here; other software runs all"
    )
    made = Step({}, size, size, {KEY: [None, config]}, opening.described, [note], thresholds=thresholds)
    if folder is not None:
        with work.timed("cut"):
            cut(source, {}, opening, folder)
        with work.timed("verify"):
            made.notes.append(verify(source, {}, opening, folder))
    return made


def stages(step: SkipExperts, given: bool, *, written: bool) -> list[str]:
    """Those that `execute` goes through, with a plan `given` or without."""
    return [*([] if given else ["calibrate"]), *(["cut", "verify"] if written else [])]


def assist(work: Work, step: SkipExperts, given: Step | None) -> None:
    """What the other processes of a distributed run do meanwhile: calibrate along."""
    if given is None:
        _gathered(work, step)


def _gathered(work: Work, step: SkipExperts) -> Stats:
    source = work.source
    rows, key = calibration(source, work.recipe)
    needs = {"expert_ratios": _modules(source.graph, step)}
    return collect(source.checkpoint, source.graph, needs, rows, data_key=key, device=work.options.where)


def _modules(graph: Graph, step: SkipExperts) -> list[str]:
    """The modules of experts outside of the layers that are left alone."""
    families = [family for family in graph.families.values() if family.kind == "experts"]
    if not families:
        raise InputError("skip: the model has no experts, so none can be skipped")
    left = {graph.blocks[number] + "." for number in graph.layers(step.skip_layers)}
    names = [experts_module(graph, family) for family in families]
    chosen = [name for name in names if not name.startswith(tuple(left))]
    if not chosen:
        raise InputError("skip_layers: every layer with experts is left out; leave in one at least")
    return chosen


def _thresholds(step: SkipExperts, stats: Stats) -> dict[str, float]:
    """Where the share of choices that lie below reaches `remove`, between two bins by interpolation."""
    found = {}
    for name in stats["expert_ratios"]:
        below = torch.cat([torch.zeros(1), stats["expert_ratios"][name].float()])
        if below[-1] == 0:
            raise BudgetError(f"{name}: the router picks one expert for each token, which cannot be skipped")
        upper = int(torch.searchsorted(below, step.remove))
        lower = upper - 1
        part = (step.remove - below[lower]) / (below[upper] - below[lower])
        found[name] = float((lower + part) / (len(below) - 1))
    return found
