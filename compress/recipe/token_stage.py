"""One stage of pruning visual tokens: where, how tokens are scored, how many stay, which, and what of the rest."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    WrapValidator,
    model_validator,
)

from compress.recipe.mistake import mistake
from compress.recipe.part import Part, TokenResidual, TokenScore, TokenSelect

TERM = ("in", "weight", "normalize", "depths")
"""Keys of a term beside the score's own name."""


def _percent(value: Any) -> Any:
    if isinstance(value, str):
        if not (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)) or float(match[1]) > 100:
            raise mistake(f"{value!r} is no depth; write a number of a layer, or a share of the depth such as 50%")
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int):
        raise mistake(f"{value!r} is no layer; write its number, or a share of the depth such as 50%")
    return value


Depth = Annotated[int | str, BeforeValidator(_percent)]
"""A layer by number, or as a share of the depth."""


class Term(BaseModel):
    """One score, and how it is added to the others: `{attention: {queries: cls, layers: [-2]}, normalize: sum}`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    score: TokenScore = Field(description="A score by name, or {name: {arguments}}.")
    where: Literal["tower", "decoder"] | None = Field(
        default=None,
        alias="in",
        description="Whose layers it reads: by default the tower's before the decoder, and the decoder's inside of it.",
    )
    depths: list[Depth] | None = Field(
        default=None, description="The layers that the score reads, as shares of the depth: [40%]."
    )
    weight: Annotated[float, Field(allow_inf_nan=False)] = Field(default=1.0, description="What it is multiplied by.")
    normalize: Literal["none", "sum", "softmax", "rank", "minmax"] = Field(
        default="none", description="What is done to the group's scores before they are weighted."
    )

    @model_validator(mode="before")
    @classmethod
    def _one_score(cls, data: Any) -> Any:
        """A term is written as its score, with other keys beside it."""
        if isinstance(data, str):
            return {"score": data}
        if isinstance(data, dict) and "score" not in data:
            names = [key for key in data if key not in TERM]
            if len(names) != 1:
                found = ", ".join(map(str, names)) or "none"
                raise mistake(f"a term has one score, and beside it {', '.join(TERM)} at most; this has {found}")
            return {"score": {names[0]: data[names[0]]}, **{key: data[key] for key in TERM if key in data}}
        return data

    def written(self) -> dict[str, Any]:
        """As it stands in a recipe or a rule."""
        part = self.score.written()
        own = {part: {}} if isinstance(part, str) else part
        more = {"in": self.where, "depths": self.depths, "weight": self.weight, "normalize": self.normalize}
        plain = {"in": None, "depths": None, "weight": 1.0, "normalize": "none"}
        return {**own, **{key: value for key, value in more.items() if value != plain[key]}}


def _keep(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)):
        value = float(match[1]) / 100
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise mistake(f"{value!r} is no share of the tokens; write 25% or 0.25")
    if value == 0:
        raise mistake("0 keeps no token; to drop all of them write `select: none`, or leave the pictures out")
    if not 0 < value <= 1:
        raise mistake(f"{value:g} is no share of the tokens; it lies above 0 and is 1 at most, such as 25% or 0.25")
    return float(value)


Keep = Annotated[float, BeforeValidator(_keep)]
"""A share of visual tokens, above 0 and up to 1."""


class InDecoder(BaseModel):
    """Before a layer of the decoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decoder: Depth = Field(
        description="The first layer that does without the tokens, counted from 0, or a share of the depth such as 50%."
    )

    @model_validator(mode="after")
    def _inside(self) -> InDecoder:
        if isinstance(self.decoder, int) and self.decoder < 1:
            raise mistake(f"decoder: {self.decoder}: a stage inside starts at layer 1; `features` is before layer 0")
        return self


def _place(value: Any, otherwise: Any) -> Any:
    """One of two forms, so that mistakes are told of the one that was meant."""
    if value == "features" or isinstance(value, InDecoder):
        return value
    if not isinstance(value, dict):
        raise mistake(f"{value!r} is no place; write features, or {{decoder: a layer}}")
    return InDecoder.model_validate(value)


def _choice(value: Any, otherwise: Any) -> Any:
    return value if value in ("none", "restore") else _SELECT.validate_python(value)


_SELECT: TypeAdapter[Part] = TypeAdapter(TokenSelect)


class Stage(BaseModel):
    """Tokens that go at one place of the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: Annotated[Literal["features"] | InDecoder, WrapValidator(_place)] = Field(
        default="features", description="`features`, which is before the decoder, or {decoder: a layer}."
    )
    per: Literal["picture", "prompt"] = Field(
        default="picture",
        description="Whose tokens share the budget: a picture's (those of the overview, and those of the tiles, where "
        "it is cut into tiles), or all of a prompt's.",
    )
    score: Annotated[
        list[Term],
        BeforeValidator(lambda one: one if isinstance(one, list) else [one]),
        PlainSerializer(lambda terms: [term.written() for term in terms]),
    ] = Field(default=[], description="Terms that are added up; none where the selection needs no scores.")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="The share of the last stage's scores in the average with these."
    )
    keep: Keep | None = Field(
        default=None,
        description="The share of the tokens that came which is left after this stage; by default the step's `keep`.",
    )
    power: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="In the place of `keep`: the step's `keep` to this power, so that stages of 1/3, 2/3 and 1 go down "
        "evenly. `.inf` drops all tokens, unless all are to be kept.",
    )
    select: Annotated[TokenSelect | Literal["none", "restore"], WrapValidator(_choice)] = Field(
        default=Part("top"),
        description="Which are kept; `none` drops them all, `restore` brings back those that left inside of the "
        "decoder, as they were when they left.",
    )
    residual: TokenResidual = Field(default=Part("drop"), description="What becomes of the others.")
    positions: Literal["keep", "renumber"] = Field(
        default="keep", description="Whether tokens that stay keep their positions, or all are counted anew."
    )

    @model_validator(mode="before")
    @classmethod
    def _none(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("select") is None and "select" in data:
            raise mistake("select: is empty; write the name of a selection, or `none` in quotes")
        return data

    @model_validator(mode="after")
    def _one_budget(self) -> Stage:
        given = [name for name in ("keep", "power") if getattr(self, name) is not None]
        if isinstance(self.select, str) and given:
            raise mistake(f"`select: {self.select}` has no budget; leave out {given[0]}")
        if len(given) == 2:
            raise mistake("keep and power both say how many tokens are kept; give one of them")
        return self

    @property
    def layer(self) -> int:
        """The decoder layer before which it acts, 0 before all. Only of a stage whose depth is a number."""
        return 0 if self.at == "features" else int(self.at.decoder)  # pyright: ignore[reportAttributeAccessIssue]

    def written(self) -> dict[str, Any]:
        """As it stands in a rule: what is the default is left out."""
        return self.model_dump(mode="json", exclude_defaults=True)
