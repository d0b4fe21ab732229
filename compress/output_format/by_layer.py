"""Lists of a configuration that have one entry for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from transformers import PretrainedConfig

from compress.errors import ModelError
from compress.model.build import empty_model
from compress.output_format.config import Field, edited, lists

MOST_OTHERS = 3
"""Lists at most that are as long as there are layers by chance: height and width beside two layers."""


def by_layer(
    config: PretrainedConfig, cls: type, edits: Mapping[Field, Any], length: int, kept: Sequence[int]
) -> dict[Field, Any]:
    """The entries of the `kept` ones of so many layers, of every list that has one for each. `edits` set the number.

    A list that the architecture cannot do with when it is shorter says something else. Where leaving out a few does not
    help either, all are given.
    """
    found = {name: [values[i] for i in kept] for name, values in lists(config, length).items()}
    for count in range(min(MOST_OTHERS, len(found)) + 1) if found else ():  # to build a model of all layers takes long
        for others in combinations(found, count):
            chosen = {name: values for name, values in found.items() if name not in others}
            if _builds(config, cls, {**edits, **chosen}):
                return chosen
    return found


def _builds(config: PretrainedConfig, cls: type, edits: Mapping[Field, Any]) -> bool:
    try:
        empty_model(edited(config, edits), cls)
    except ModelError:
        return False
    return True
