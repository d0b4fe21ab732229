"""docs/visual-tokens.png: what presets answer right when the language model reads fewer visual tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

SHOWN = {
    "`fastv`": "C3",
    "`pyramiddrop`": "C4",
    "`divprune`": "C0",
    "`visionzip`": "C1",
    "`cdpruner`": "C2",
    "`fopru`": "C5",
}
"""Presets that are named in the picture; the others are grey."""
PLAIN = {"`random`": "k", "`uniform`": "0.35"}


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """One line a preset over the share of tokens that is left in the end, means with standard errors."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name in dict.fromkeys(one["setting"] for one in rows if one["setting"].startswith("`")):
        own = sorted((one for one in rows if one["setting"] == name), key=lambda one: one["keep"])
        shares = [100 * one["keep"] for one in own]
        means = [100 * np.mean(one["values"]) for one in own]
        errors = [100 * np.std(one["values"], ddof=1) / len(one["values"]) ** 0.5 for one in own]
        color = {**SHOWN, **PLAIN}.get(name)
        style: dict[str, Any] = {"color": color, "label": name.strip("`")} if color else {"color": "0.85", "zorder": 0}
        axes.errorbar(
            shares, means, errors if color else None, ls="--" if name in PLAIN else "-", marker="o", ms=3, **style
        )
    for name, text in (("dense", "all tokens"), ("blind", "the wrong picture")):
        level = 100 * np.mean(next(one["values"] for one in rows if one["setting"] == name))
        axes.axhline(level, color="0.6", lw=0.8, ls=":")
        axes.annotate(text, (50, level), xytext=(0, 3), textcoords="offset points", ha="right", fontsize=8, color="0.4")
    axes.set_xlabel("visual tokens left in the end, %")
    axes.set_ylabel("questions answered right, %")
    axes.set_xticks([11, 25, 50])
    axes.legend(fontsize=8, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)
    plt.close(figure)
