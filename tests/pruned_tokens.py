"""Models that obey rules about visual tokens for a while, and which tokens they kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from compress import runtime
from compress.recipe.token_stage import Stage
from compress.recipe.tokens import preset
from compress.runtime.tokens.expand import expanded
from compress.runtime.tokens.find import check, places_of


@contextmanager
def obeying(model: Any, *stages: dict[str, Any], seed: int = 0) -> Iterator[runtime.Attached]:
    """Stages as a rule has them."""
    model.config.compress = {"version": 1, "rules": [{"kind": "tokens", "stages": list(stages), "seed": seed}]}
    try:
        with runtime.attach(model) as attached:
            yield attached
    finally:
        del model.config.compress


def stages_of(name: str, model: Any, keep: float | None = None) -> list[dict[str, Any]]:
    """A preset's stages for a model, as the step writes them."""
    asked, own = preset(name).asked
    places = places_of(model)
    made = expanded(asked, own if keep is None else keep, places)
    check(places, made)
    return [stage.written() for stage in made]


def layer_of(stage: dict[str, Any]) -> int:
    return Stage.model_validate(stage).layer


def kept(output: Any, layer: int, row: int = 0) -> list[int]:
    """The columns of a prompt that a layer holds."""
    columns: Tensor = output.past_key_values.compress_tokens.at(layer).slots.columns[row]
    return columns[columns >= 0].tolist()
