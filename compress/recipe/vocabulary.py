"""The step that takes tokens out of the vocabulary."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator

from compress.recipe.mistake import mistake
from compress.recipe.share import SHARE_SCHEMA, read_share, spelled_share

UNUSED = "unused"
BUDGETS = ("remove", "keep")


def _unused_or_share(value: Any) -> float | str:
    if isinstance(value, str) and value.strip() == UNUSED:
        return UNUSED
    return read_share(value, others=f" or `{UNUSED}`")


Removed = Annotated[
    float | Literal["unused"],
    BeforeValidator(_unused_or_share),
    PlainSerializer(lambda value: value if value == UNUSED else spelled_share(value)),
    WithJsonSchema({"anyOf": [{"const": UNUSED}, SHARE_SCHEMA]}),
]


class PruneVocab(BaseModel):
    """Tokens that a corpus uses little or never leave embedding, output head and tokenizer together.

    Their text is spelled by smaller tokens afterwards. A step has exactly one budget: `remove` or `keep`.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"oneOf": [{"required": [key]} for key in BUDGETS]}
    )

    prune: Literal["vocab"] = Field(description="The tokens, with their rows of the embedding and the output head.")
    remove: Removed | None = Field(
        default=None,
        description="The budget as a share of the tokens, those that the text of `calibrate.data` uses least; or "
        "`unused`, all that it never uses. All of that text is counted (up to 200 million characters), whatever "
        "`samples` and `length` are.",
    )
    keep: dict[Literal["tokens"], Annotated[int, Field(ge=1, strict=True)]] | None = Field(
        default=None, description="The budget as the number of tokens that stay: `{tokens: 16384}`."
    )
    round: Annotated[int, Field(ge=1, le=2**31, strict=True)] = Field(
        default=1, description="The number of tokens that stay is a multiple of this; 64 suits fast kernels."
    )

    @model_validator(mode="after")
    def _one_budget(self) -> PruneVocab:
        given = [key for key in BUDGETS if getattr(self, key) is not None]
        if not given:
            raise mistake("no budget; add one of `remove: unused`, `remove: 50%`, `keep: {tokens: 16384}`")
        if len(given) > 1:
            raise mistake("a step has one budget, this one has remove and keep; leave one out")
        if self.keep is not None and not self.keep:
            raise mistake("keep: say how many, as in {tokens: 16384}")
        return self
