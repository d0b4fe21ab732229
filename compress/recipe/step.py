"""The steps of a recipe, told apart by their first key and what they prune."""

from __future__ import annotations

from typing import Annotated, Any, Union

from pydantic import BaseModel, PlainSerializer, PlainValidator

from compress.recipe.delta import PruneDelta
from compress.recipe.prune import Prune
from compress.recipe.skipping import SkipExperts
from compress.recipe.weights import PruneWeights

STEPS: dict[str, type[BaseModel]] = {"delta": PruneDelta, "weights": PruneWeights}
"""What a step prunes → its model; every other kind of unit is a `Prune`."""


def step_model(data: Any) -> type[BaseModel]:
    """The model that a step written as `data` has to fit."""
    if isinstance(data, dict) and "skip" in data and "prune" not in data:
        return SkipExperts
    what = data.get("prune") if isinstance(data, dict) else None
    return STEPS.get(what, Prune) if isinstance(what, str) else Prune


def _checked(data: Any) -> BaseModel:
    return data if isinstance(data, BaseModel) else step_model(data).model_validate(data)


Step = Annotated[
    Prune,
    PlainValidator(_checked, json_schema_input_type=Union[Prune, SkipExperts, *STEPS.values()]),
    PlainSerializer(lambda step: step.model_dump(mode="json", exclude_none=True)),
]
