"""What a recipe may say. Unknown keys are errors; names of parts are checked against the registries."""

from __future__ import annotations

from typing import Annotated, Any, Literal

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
    """The data whose statistics steer the criteria."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Data | None = Field(
        default=None,
        description="A source by name, a file or folder, or a dataset of the hub (`owner/name`). Without it, what "
        "suits the model: `docs` for one of text, `photos` for one of images, `captions` for both, `speech` for sound.",
    )
    samples: Annotated[int, Field(ge=1, strict=True)] = Field(
        default=128, description="How many sequences, images or recordings are read."
    )
    length: Annotated[int, Field(ge=1, strict=True)] = Field(default=512, description="Tokens of a sequence of text.")
    batch: Annotated[int, Field(ge=1, strict=True)] = Field(
        default=8, description="Samples that are run at a time; it changes memory and time, hardly the result."
    )
    gradients: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        default=None,
        description="How many of the samples are run backwards too, for criteria that read gradients; all without it. "
        "A way back takes three times as long as the forward.",
    )
    template: Literal["chat"] | None = Field(
        default=None,
        description="`chat` puts text into the form of the tokenizer's chat template, which an instruct model was "
        "trained on.",
    )

    @model_validator(mode="after")
    def _held(self) -> Calibrate:
        if self.samples * self.length > MOST_TOKENS:
            raise mistake(
                f"{self.samples:,} samples of {self.length:,} tokens are more than memory holds (at most "
                f"{MOST_TOKENS:,} tokens); lower samples or length"
            )
        return self


class Recipe(BaseModel):
    """The whole recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = Field(default="", description="One sentence on what the recipe does; it heads the report.")
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED, strict=True)] = Field(
        default=0, description="Of every random choice: which text is read, random criteria, masks of a delta."
    )
    calibrate: Calibrate = Field(
        default=Calibrate(), description="The text that the model is run on to gather statistics."
    )
    steps: Annotated[list[Step], Field(min_length=1)] = Field(
        description="What is done to the model, one after the other."
    )
    export: Exports | None = Field(
        default=None, description="Formats that the result is written in too, each in a folder of its own in OUT."
    )

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

    def on(self, data: Part) -> Recipe:
        """The same recipe, calibrated on `data` where it names none."""
        named = self.calibrate.data or data
        return self.model_copy(update={"calibrate": self.calibrate.model_copy(update={"data": named})})

    def dump(self) -> str:
        """The recipe as YAML, every default written out, so that it means the same in a later version."""
        return to_yaml(self.model_dump(mode="json", exclude_none=True))


def _kind(step: BaseModel) -> Any:
    return entry_of(step).target


def json_schema() -> dict[str, Any]:
    """JSON schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
