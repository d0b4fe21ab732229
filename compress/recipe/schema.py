"""What a recipe may say. Unknown keys are errors; names of parts are checked against the registries."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from compress.recipe.export import Exports
from compress.recipe.mistake import mistake
from compress.recipe.part import Data, Part
from compress.recipe.source import to_yaml
from compress.recipe.step import Step, entry_of

MOST_TOKENS = 100_000_000
"""Of all samples together. Every block's inputs for them are held: 800 GB of 4,096 channels in half precision."""

LARGEST_SEED = 2**63 - 1


class Calibrate(BaseModel):
    """The text whose statistics steer the criteria: `samples` sequences of `length` tokens, `batch` at a time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Data = Part("docs")
    samples: Annotated[int, Field(ge=1, strict=True)] = 128
    length: Annotated[int, Field(ge=1, strict=True)] = 512
    batch: Annotated[int, Field(ge=1, strict=True)] = 8

    @model_validator(mode="after")
    def _held(self) -> Calibrate:
        if self.samples * self.length > MOST_TOKENS:
            raise mistake(
                f"{self.samples:,} samples of {self.length:,} tokens are more than memory holds (at most "
                f"{MOST_TOKENS:,} tokens); lower samples or length"
            )
        return self


class Recipe(BaseModel):
    """The whole recipe: `steps` in their order, then what to `export` the result to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = ""
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED, strict=True)] = 0
    calibrate: Calibrate = Calibrate()
    steps: Annotated[list[Step], Field(min_length=1)]
    export: Exports | None = None

    @field_validator("steps")
    @classmethod
    def _orderly(cls, steps: list[BaseModel]) -> list[BaseModel]:
        for number, kind in enumerate(map(_kind, steps)):
            if kind.alone and len(steps) > 1:
                raise mistake(f"`{kind.title()}` stands alone: {kind.alone}")
            if kind.last and number + 1 < len(steps):
                raise mistake(f"`{kind.title()}` must be the last step: {kind.last}")
        return steps

    @model_validator(mode="after")
    def _exported(self) -> Recipe:
        kind = _kind(self.steps[0])
        if self.export is not None and not kind.makes_model:
            raise mistake(f"`{kind.title()}` writes no model, so there is nothing to export; leave out `export`")
        return self

    def dump(self) -> str:
        """The recipe as YAML, every default written out, so that it means the same in a later version."""
        return to_yaml(self.model_dump(mode="json", exclude_none=True))


def _kind(step: BaseModel) -> Any:
    return entry_of(step).target


def json_schema() -> dict[str, Any]:
    """JSON schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
