"""The step that prunes each model of a pipeline in its own way."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from compress.recipe.mistake import mistake
from compress.recipe.step import Step, entry_of

Inner = Annotated[Step, WithJsonSchema({"type": "object", "format": "step", "description": "a step, as in `steps`"})]
"""Their schema is not written out once more inside of itself."""


class PruneComponents(BaseModel):
    """Prune components of a pipeline (text encoder, U-Net …), each by steps of its own; the others stay."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    components: Annotated[dict[str, Annotated[list[Inner], Field(min_length=1)]], Field(min_length=1)] = Field(
        description="The name of a component, as model_index.json has it, and its steps, each with a `remove`."
    )
    before_cliff: bool = Field(
        default=False,
        description="Go up to each `remove` in ten equal parts, and stop before the first that breaks the component's "
        "output down.",
    )

    @field_validator("components")
    @classmethod
    def _models(cls, components: dict[str, list[BaseModel]]) -> dict[str, list[BaseModel]]:
        for name, steps in components.items():
            for number, step in enumerate(steps):
                kind = entry_of(step).target
                if not kind.makes_model or kind.alone:  # pyright: ignore[reportFunctionMemberAccess]
                    raise mistake(f"{name}.{number}: `{kind.title()}` is no step of a component")  # pyright: ignore
                if getattr(step, "remove", None) is None:
                    raise mistake(f"{name}.{number}: say how much goes by `remove`, as in `remove: 30%`")
        return components
