"""Which parameters of a model's blocks lie in families that may lose groups, and why the others do not."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection
from math import prod
from typing import Any

from compress.graph.layout import families
from compress.model.model import Model

INNER = ("heads", "queries", "head_dim", "channels", "experts")
"""Kinds inside of blocks. Widths of the residual stream and whole layers are free nearly everywhere: they would hide
what is not understood."""

NUMBERED = re.compile(r"(?<![^.])\d+\.")
SHOWN = 4


def pins(source: Model, inner: Collection[str] = INNER) -> dict[str, Any]:
    """`families`: kind → [free, all]. `share` of the parameters in numbered modules (all, where there is none) of which
    some dimension lies in a free family of a kind in `inner`. `pinned`: reason → share, the largest first."""
    graph = source.graph
    counted: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for family in graph.families.values():
        counted[family.kind][0] += family.pinned is None
        counted[family.kind][1] += 1
    numbered = [name for name in graph.layouts if NUMBERED.search(name)] or list(graph.layouts)
    sizes = {name: prod(layout.size for layout in graph.layouts[name]) for name in numbered}
    whole, free, why = sum(sizes.values()) or 1, 0, Counter[str]()
    for name, size in sizes.items():
        own = [graph.families[f] for layout in graph.layouts[name] for f in families(layout) if f in graph.families]
        if any(family.pinned is None and family.kind in inner for family in own):
            free += size
            continue
        said = dict.fromkeys(_general(f.pinned) for f in own if f.pinned and f.kind not in ("hidden", "vocab"))
        why["; ".join(said) or "it is part of no family inside of blocks"] += size
    return {
        "families": dict(counted),
        "share": round(free / whole, 3),
        "pinned": [
            [reason, round(size / whole, 3)] for reason, size in why.most_common(SHOWN) if size / whole >= 0.005
        ],
    }


def _general(reason: str) -> str:
    """The reason without the numbers of blocks, so that those of different models compare."""
    return re.sub(r"(?<=[.\[])\d+(?=[.\]]|\b)", "*", reason)
