"""How much of a family's saliency stays with the groups that stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compress.graph.families import Family

Saliency = dict[str, dict[str, Any]]
"""Family → its `layer` (None of one that spans several) and the share of its saliency that is `kept`."""


def saliency_kept(
    families: Sequence[Family], scores: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray]
) -> Saliency:
    """Of `families` with `scores` `[size]` each, `kept` bool `[size]` where they lose groups.

    Families whose scores are not all positive or zero are left out, as a share of their sum means nothing.
    """
    found: Saliency = {}
    for family in families:
        values = np.asarray(scores[family.name], dtype=np.float64)
        total = values.sum()
        if not (np.isfinite(total) and total > 0 and values.min() >= 0):
            continue
        mask = kept.get(family.name, np.ones(len(values), bool))
        found[family.name] = {"layer": family.layer, "kept": round(float(values[mask].sum() / total), 6)}
    return found
