"""The step that prunes what fine-tuning changed, instead of the model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compress.recipe.mistake import mistake
from compress.recipe.share import Share

WHOLE = ["*classifier*", "score.*", "*lm_head*", "*embed_tokens*", "*wte*", "*wpe*"]
"""Heads, and the embeddings of decoders: tensors that the authors of DAREx leave whole."""


class PruneDelta(BaseModel):
    """Prune the task vector Δ = fine-tuned − base, and write Δ alone; `compress apply-delta` adds it to the base again.

    Vectors are kept whole.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prune: Literal["delta"] = Field(description="The task vector; such a step stands alone in a recipe.")
    base: Annotated[str, Field(min_length=1)] = Field(description="The base model: a folder or a hub id.")
    remove: Share = Field(description="The share of the entries of every matrix of Δ that goes.")
    by: Literal["darex", "dare", "magnitude"] = Field(
        default="darex",
        description="Which entries go, and by what those that stay are divided. `dare`: at random, 1 − `remove` "
        "(Yu et al. 2023, https://arxiv.org/abs/2311.03099); `darex`: at random, q (Deng et al. 2024, "
        "https://arxiv.org/abs/2410.09344); `magnitude`: the smallest, nothing.",
    )
    q: Literal["global", "rows", "layers"] = Field(
        default="global",
        description="The divisor of darex: one for the model, found on calibration text without labels (`global`); one "
        "for every row by its closed objective (`rows`); or the mean of those in each matrix (`layers`).",
    )
    eta: Annotated[float, Field(gt=0)] = Field(default=0.45, description="The parameter of darex's objective for rows.")
    seeds: Annotated[int, Field(ge=1, strict=True)] = Field(
        default=4, description="How many random masks are tried for a global q."
    )
    skip: list[str] = Field(default=WHOLE, description="Globs on names of tensors whose difference is kept whole.")

    @model_validator(mode="before")
    @classmethod
    def _fitting(cls, data: Any) -> Any:
        """An argument that the method does not read is a slip."""
        if isinstance(data, dict):
            given = [key for key in ("q", "eta", "seeds") if key in data]
            if given and data.get("by", "darex") in ("dare", "magnitude"):
                raise mistake(f"`{given[0]}` is for `by: darex`; `by: {data['by']}` does not read it, leave it out")
        return data
