"""The step that lets tokens skip experts while the model runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from compress.recipe.share import Share


class SkipExperts(BaseModel):
    """Tokens leave out the experts that their router hardly wants: MC-MoE's dynamic pruning (arXiv 2410.06270).

    Each layer gets a threshold on a choice's weight over that of the token's first choice, such that the share `remove`
    of the further choices in the calibration text falls below it; half of them is MC-MoE's median. The share `protect`
    of a text's tokens that matter most keep all their experts. `skip_layers` are blocks that skip nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    skip: Literal["experts"]
    remove: Share
    protect: Annotated[float, Field(ge=0, lt=1)] | Share = 0.02
    skip_layers: list[Annotated[int, Field(strict=True)]] = []
