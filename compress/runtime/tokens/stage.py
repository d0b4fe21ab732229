"""One stage of a rule about tokens: where it acts, how tokens are scored, how many stay, which, and what of the rest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from compress.recipe.mistake import mistake
from compress.recipe.part import Part, TokenResidual, TokenScore, TokenSelect

TERM = ("in", "weight", "normalize")
"""Keys of a term beside the score's own name."""


class Term(BaseModel):
    """One score, and how it is added to the others: `{attention: {queries: cls, layers: [-2]}, normalize: sum}`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    score: TokenScore = Field(description="A score by name, or {name: {arguments}}.")
    where: Literal["tower", "decoder"] | None = Field(
        default=None,
        alias="in",
        description="Whose attention it reads; that of the tower before the decoder and the decoder's inside of it.",
    )
    weight: Annotated[float, Field(allow_inf_nan=False)] = Field(default=1.0, description="What it is multiplied by.")
    normalize: Literal["none", "sum", "softmax", "rank", "minmax"] = Field(
        default="none", description="What is done to the group's scores before they are weighted."
    )

    @model_validator(mode="before")
    @classmethod
    def _one_key(cls, data: Any) -> Any:
        """A term is written as its score, with other keys beside it."""
        if isinstance(data, str):
            return {"score": data}
        if isinstance(data, dict) and "score" not in data:
            names = [key for key in data if key not in TERM]
            if len(names) != 1:
                raise mistake(f"a term has one score and may have {', '.join(TERM)}; this has {', '.join(names) or 'none'}")
            return {"score": {names[0]: data[names[0]]}, **{key: data[key] for key in TERM if key in data}}
        return data

    def written(self) -> dict[str, Any]:
        """As a rule is stored."""
        part = self.score.written()
        own = {part: {}} if isinstance(part, str) else part
        more = {"in": self.where, "weight": self.weight, "normalize": self.normalize}
        plain = {"in": None, "weight": 1.0, "normalize": "none"}
        return {**own, **{key: value for key, value in more.items() if value != plain[key]}}


def _keep(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise mistake(f"{value!r} is no share of the tokens; write 0.25")
    if value == 0:
        raise mistake("0 keeps no token; to drop all of them write `select: none`")
    if not 0 < value <= 1:
        raise mistake(f"{value:g} is no share; write a number above 0 and at most 1, such as 0.25")
    return float(value)


class Decoder(BaseModel):
    """Before a layer of the decoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decoder: Annotated[int, Field(strict=True, ge=1)] = Field(
        description="The first layer that does without the tokens; layers count from 0."
    )


class Stage(BaseModel):
    """Tokens that go at one place of the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: Literal["features"] | Decoder = Field(
        default="features", description="`features`, before the decoder, or {decoder: number of a layer}."
    )
    per: Literal["picture", "prompt"] = Field(
        default="picture", description="Whose tokens share the budget: a picture's, or those of all pictures of a prompt."
    )
    score: Annotated[list[Term], BeforeValidator(lambda one: one if isinstance(one, list) else [one])] = Field(
        default=[], description="Terms that are added up; none where the selection needs no scores."
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="The share of the last stage's scores that these are averaged with."
    )
    keep: Annotated[float, BeforeValidator(_keep)] | None = Field(
        default=None, description="The share of the tokens that the prompt came with which is left after this stage."
    )
    select: TokenSelect | Literal["none"] = Field(default=Part("top"), description="Which are kept; `none` drops them all.")
    residual: TokenResidual = Field(default=Part("drop"), description="What becomes of the others.")
    positions: Literal["keep", "renumber"] = Field(
        default="keep", description="Whether the tokens that stay keep their positions, or are counted anew."
    )

    @model_validator(mode="after")
    def _complete(self) -> Stage:
        if self.select == "none" and self.keep is not None:
            raise mistake("`select: none` keeps no token; leave out keep")
        if self.select != "none" and self.keep is None:
            raise mistake("how many tokens are kept? give keep, a share such as 0.25")
        return self

    @property
    def layer(self) -> int:
        """The decoder layer before which it acts; 0 before all of them."""
        return 0 if self.at == "features" else self.at.decoder  # pyright: ignore[reportAttributeAccessIssue]

    def written(self) -> dict[str, Any]:
        """As a rule is stored: what is not said is the default."""
        data = self.model_dump(mode="json", exclude_defaults=True, exclude={"score"})
        if self.score:
            data["score"] = [term.written() for term in self.score]
        return data
