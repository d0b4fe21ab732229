"""Visual tokens that the decoder does without: which go where, as a list of stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from compress.recipe.token_stage import Stage
from compress.registry import rules
from compress.runtime.tokens.find import check, places_of
from compress.runtime.tokens.flow import Flow


@rules.add("tokens")
@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Visual tokens go, stage by stage, before the decoder or inside of it.

    `preset` is the name that the stages were written by, for people; `seed` that of what is drawn.

    Counted: `tokens` that came, and how many were `kept` after the last stage.
    """

    stages: Annotated[list[Stage], Field(min_length=1)]
    preset: str | None = None
    seed: int = 0

    def attach(self, model: nn.Module, undo: ExitStack, counts: Counter[str]) -> None:
        """Have `model` obey. Raises ModelError for a model without pictures, and for stages that do not fit it."""
        places = places_of(model)
        check(places, self.stages)
        Flow(places, self.stages, self.seed, counts).attach(undo)

    def renumbered(self, blocks: Mapping[str, str | None]) -> Tokens:
        """The rule after blocks went: rules are written last, so none can have gone."""
        return self
