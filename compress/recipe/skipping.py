"""The step that lets tokens skip experts while the model runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from compress.recipe.share import Share


class SkipExperts(BaseModel):
    """Tokens leave out the experts that their router hardly wants: MC-MoE's dynamic pruning (arXiv 2410.06270).

    Each layer gets a threshold on a choice's weight over that of the token's first choice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    skip: Literal["experts"] = Field(description="Experts of a mixture; nothing is removed from the weights.")
    remove: Share = Field(
        description="The share of the tokens' further choices, in the calibration text, that falls below the "
        "thresholds. 50% is MC-MoE's median."
    )
    protect: Annotated[float, Field(ge=0, lt=1)] | Share = Field(
        default=0.02, description="The share of a text's tokens, those that matter most, that keep all their experts."
    )
    skip_layers: list[Annotated[int, Field(strict=True)]] = Field(
        default=[], description="Indices of blocks where nothing is skipped; negative ones count from the end."
    )
