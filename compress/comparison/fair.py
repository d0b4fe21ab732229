"""What makes the rows of a comparison unlike, and which of them can be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compress.comparison.candidates import Candidate
from compress.comparison.front import goodness
from compress.evaluate.load import named
from compress.metrics.change import ERRORS, Sampled, difference

UNLIKE = 0.01
"""Shares of the model's parameters, or of its visual tokens, that are further apart are unlike."""


def warnings(chosen: Sequence[Candidate], rows: Sequence[Mapping[str, Any]], dense: Mapping[str, Any]) -> list[str]:
    """In what the rows differ beside their methods: the text that is calibrated on, and the shares that are gone."""
    found, texts = [], dict[str, list[str]]()
    done = {row["name"]: row for row in rows if "error" not in row}
    for one in chosen:
        text = one.recipe.calibrate
        source = named(text.data or "what suits the model")
        tokens = f"{text.samples * text.length:,} tokens of {source} ({text.samples} × {text.length})"
        if one.name in done:
            texts.setdefault(tokens, []).append(one.name)
    if len(texts) > 1:
        listed = "; ".join(f"{tokens}: {_some(names)}" for tokens, names in texts.items())
        found.append(f"calibrated on unlike texts: {listed}")
    gone = {name: 1 - row["params"] / dense["params"] for name, row in done.items()}
    if gone and max(gone.values()) - min(gone.values()) > UNLIKE:
        least, most = min(gone, key=gone.__getitem__), max(gone, key=gone.__getitem__)
        found.append(
            f"unlike shares of the model's parameters are gone, from {gone[least]:.1%} ({least}) to {gone[most]:.1%} "
            f"({most}): a rank says nothing of methods"
        )
    kept = {name: row["kept"] for name, row in done.items() if "kept" in row}
    if kept and max(kept.values()) - min(kept.values()) > UNLIKE:
        least, most = min(kept, key=kept.__getitem__), max(kept, key=kept.__getitem__)
        found.append(
            f"unlike shares of the visual tokens are read, from {kept[least]:.1%} ({least}) to {kept[most]:.1%} "
            f"({most}): a rank says nothing of methods"
        )
    return found


def ranking(rows: Sequence[Mapping[str, Any]], sampled: Mapping[str, Sampled]) -> list[dict[str, Any]]:
    """Names, best quality first; `difference` is to the next better one, paired over the same samples, in what the
    metric pairs (nats a token, a correlation, a share), `error` its standard error, and `measurable` whether chance
    does not explain it."""
    best = sorted((row for row in rows if row.get("quality")), key=lambda row: -goodness(row["quality"]))
    found: list[dict[str, Any]] = []
    for number, row in enumerate(best):
        one: dict[str, Any] = {"name": row["name"]}
        above = best[number - 1]["name"] if number else ""
        if above in sampled and row["name"] in sampled:
            apart, error = difference(sampled[above], sampled[row["name"]])
            one |= {"difference": apart, "error": error, "measurable": abs(apart) > ERRORS * error}
        found.append(one)
    return found


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
