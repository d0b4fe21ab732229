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

    `base` is a folder or hub id. `by` says which entries of every matrix go, and by what those that stay are divided:
    `dare` drops at random and divides by 1 − `remove` (Yu et al. 2023, https://arxiv.org/abs/2311.03099); `darex` drops
    at random and divides by q (Deng et al. 2024, https://arxiv.org/abs/2410.09344); `magnitude` drops the smallest and
    divides by nothing. `q` of darex is one for the model, found on calibration text without labels (`global`), one for
    every row by its closed objective with the parameter `eta` (`rows`), or the mean of those in each matrix (`layers`).
    `seeds` masks are tried for a global q. Tensors that match a glob of `skip`, and vectors, are kept whole.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prune: Literal["delta"]
    base: Annotated[str, Field(min_length=1)]
    remove: Share
    by: Literal["darex", "dare", "magnitude"] = "darex"
    q: Literal["global", "rows", "layers"] = "global"
    eta: Annotated[float, Field(gt=0)] = 0.45
    seeds: Annotated[int, Field(ge=1, strict=True)] = 4
    skip: list[str] = WHOLE

    @model_validator(mode="before")
    @classmethod
    def _fitting(cls, data: Any) -> Any:
        """An argument that the method does not read is a slip."""
        if isinstance(data, dict):
            given = [key for key in ("q", "eta", "seeds") if key in data]
            if given and data.get("by", "darex") in ("dare", "magnitude"):
                raise mistake(f"`{given[0]}` is for `by: darex`; `by: {data['by']}` does not read it, leave it out")
        return data
