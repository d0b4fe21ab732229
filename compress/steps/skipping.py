"""Letting tokens skip experts: thresholds from the router's weights, written into the config."""

from __future__ import annotations

from typing import Any

import torch

from compress.errors import BudgetError, InputError
from compress.execution.context import Context, Needs
from compress.graph.families import Graph
from compress.graph.routers import experts_module
from compress.output_format.find import find_output_format
from compress.recipe.skipping import SkipExperts
from compress.registry import steps
from compress.runtime.config import KEY, written
from compress.score.views import Stats
from compress.steps.kind import Decision, ModelStep
from compress.surgery.claims.same import SameWeights
from compress.surgery.edit import Edit, Put, unchanged_specs


@steps.add("skip-experts")
class SkipUnwantedExperts(ModelStep):
    """Let tokens skip the experts that they hardly need, while the model runs."""

    settings, verb, subjects = SkipExperts, "skip", ("experts",)
    unforeseen = "its thresholds are measured on text"
    last = "it measures the model that it is written into"
    step: SkipExperts

    def needs(self, context: Context) -> Needs:
        return Needs({"expert_ratios": set(_modules(context.source.graph, self.step))})

    def calibrates(self, *, given: bool) -> bool:
        return not given

    def decide(self, context: Context, gathered: Stats) -> dict[str, Any]:
        """`thresholds`: module of experts → below which share of the first choice's weight a choice is skipped.

        Raises BudgetError where the router picks one expert only.
        """
        return {"thresholds": _thresholds(self.step, gathered)}

    def edit(self, context: Context, decision: Decision, gathered: Stats) -> Edit:
        source, step = context.source, self.step
        thresholds = decision["thresholds"]
        rules = written([{"kind": "skip_experts", "thresholds": thresholds, "protect": step.protect}])

        def produce(put: Put) -> None:
            for name, _, _ in specs:
                put(name, source.weights.read_stored(name))

        specs, output_format = unchanged_specs(source), find_output_format(source, {})
        note = (
            f"of the experts' visits but each token's first, {step.remove:.0%} are skipped where "
            "`compress.runtime.attach(model)` was called, as it is for the figures here; other software runs all"
        )
        return Edit(
            specs,
            produce,
            {**output_format.config, KEY: rules},
            SameWeights(),
            output_format.described,
            changed={KEY: (None, rules)},
            notes=[note],
        )


def _modules(graph: Graph, step: SkipExperts) -> list[str]:
    """The modules of experts outside of the layers that are left alone. Raises InputError for a model without any."""
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
