"""The step that takes the statistics of batch norms anew."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Reestimate(BaseModel):
    """Means and variances of batch norms are taken of the calibration data anew, as after a cut they are others.

    OBSPA (arXiv 2403.18955) does so, also with noise (`calibrate: {data: random}`) where there are no data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reestimate: Literal["batch_norm"] = Field(
        description="The running means and variances of all batch norms. Each batch is normalised by its own "
        "statistics meanwhile, and these are averaged; take batches as large as memory holds."
    )
