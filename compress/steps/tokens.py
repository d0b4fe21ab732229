"""Rules about visual tokens, written into the config."""

from __future__ import annotations

from typing import Any

from compress.errors import InputError, ModelError
from compress.execution.context import Context
from compress.output_format.find import find_output_format
from compress.recipe.token_stage import Stage
from compress.recipe.tokens import PruneTokens
from compress.registry import steps
from compress.runtime.config import KEY, written
from compress.runtime.tokens.engines import engines
from compress.runtime.tokens.expand import expanded
from compress.runtime.tokens.find import check, places_of
from compress.steps.kind import Decision, ModelStep
from compress.surgery.claims.same import SameWeights
from compress.surgery.edit import Edit, Put, unchanged_specs


@steps.add("tokens")
class PruneVisualTokens(ModelStep):
    """Visual tokens that the decoder does without while the model runs, by rules in the config."""

    settings, verb = PruneTokens, "tokens"
    last = "its rules name layers of the model that it is written into"
    step: PruneTokens

    def decide(self, context: Context, gathered: Any) -> dict[str, Any]:
        """`stages` as the rule has them. Raises InputError for a model without pictures, and for stages that do not
        fit it."""
        stages, keep = self.step.asked
        try:
            places = places_of(context.source.module)
            made = expanded(stages, keep, places)
            check(places, made)
        except ModelError as error:
            raise InputError(str(error)) from None
        return {"stages": [stage.written() for stage in made], "seed": context.recipe.seed}

    def edit(self, context: Context, decision: Decision, gathered: Any) -> Edit:
        source = context.source
        name = self.step.tokens if isinstance(self.step.tokens, str) else None
        rule = {"kind": "tokens", "preset": name, "seed": decision["seed"], "stages": decision["stages"]}
        rules = written([{key: value for key, value in rule.items() if value is not None}])

        def produce(put: Put) -> None:
            for tensor, _, _ in specs:
                put(tensor, source.weights.read_stored(tensor))

        specs, output_format = unchanged_specs(source), find_output_format(source, {})
        stages = [Stage.model_validate(stage) for stage in decision["stages"]]
        notes = [
            "visual tokens are pruned where `compress.load` opened the model or `compress.runtime.attach(model)` was "
            f"called, as it is for the figures here: {'; '.join(_said(stage) for stage in stages)}",
            *engines(stages),
        ]
        return Edit(
            specs,
            produce,
            {**output_format.config, KEY: rules},
            SameWeights(),
            output_format.described,
            changed={KEY: (None, rules)},
            notes=notes,
        )

    @staticmethod
    def rows(decision: Decision) -> dict[str, str]:
        stages = [Stage.model_validate(stage) for stage in decision["stages"]]
        return {"visual tokens": "; ".join(_said(stage) for stage in stages)}


def _said(stage: Stage) -> str:
    where = "before the decoder" if stage.layer == 0 else f"from decoder layer {stage.layer} on"
    kept = {"none": "none", "restore": "those that left inside come back"}
    return f"{where} {kept[stage.select] if isinstance(stage.select, str) else f'{stage.keep:.3g} of them'}"
