"""A plan: every decision as data, before a byte of the result is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import InputError
from compress.files.ordinary import check_ordinary
from compress.graph.families import Graph

VERSION = 2
"""Raised when the form changes, or how the digest of a model is made."""


@dataclass(frozen=True)
class Step:
    """What one step decided.

    `kept`: family → indices of the groups that stay (families that stay whole are absent). `before` and `after` hold
    `params`, `flops` (of `flops_length` tokens) and `bytes`. `config`: edited values, path → [old, new]. `opens_with`
    has `transformers` and `remote_code` (whether stock classes do, whether the modeling file must) and `how`.
    `thresholds`: module of experts → below which share of the first choice's weight a choice is skipped.
    `sparsity`: tensor → the share of its weights that becomes zero. `merged`: family of experts → for each that stays,
    the shares of the experts that it is put together of.
    """

    kept: dict[str, list[int]]
    before: dict[str, int]
    after: dict[str, int]
    config: dict[str, list[Any]]
    opens_with: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    merged: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    sparsity: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)

    def mixes(self, graph: Graph) -> dict[str, np.ndarray]:
        """`merged` as matrices `[kept, size]`."""
        found = {}
        for name, rows in self.merged.items():
            found[name] = np.zeros((len(rows), graph.families[name].size))
            for row, parts in zip(found[name], rows, strict=True):
                for index, share in parts.items():
                    row[int(index)] = share
        return found

    def masks(self, graph: Graph) -> dict[str, np.ndarray]:
        """`kept` as bool `[size]` per family. Raises InputError when the graph is another one."""
        masks = {}
        for name, indices in self.kept.items():
            if name not in graph.families or (indices and max(indices) >= graph.families[name].size):
                raise InputError(f"the plan keeps groups of {name!r}, which the model does not have; plan anew")
            masks[name] = np.zeros(graph.families[name].size, bool)
            masks[name][indices] = True
        return masks


@dataclass(frozen=True)
class Plan:
    """`model` as it was named and its `digest`; `recipe` as YAML with every default; one entry of `steps` each."""

    model: str
    digest: str
    recipe: str
    steps: list[Step]
    version: int = VERSION

    @property
    def before(self) -> dict[str, int]:
        return self.steps[0].before

    @property
    def after(self) -> dict[str, int]:
        return self.steps[-1].after

    @property
    def notes(self) -> list[str]:
        return list(dict.fromkeys(note for step in self.steps for note in step.notes))

    def dump(self) -> str:
        """As JSON, lists of indices on one line each."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False, default=str)
        return _on_one_line(text) + "\n"

    def data(self) -> dict[str, Any]:
        """As plain values."""
        return json.loads(self.dump())


def read_plan(path: Path) -> Plan:
    """Read a plan. Raises InputError when the file is missing, or no plan of this version."""
    check_ordinary(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["version"] != VERSION:
            raise InputError(f"{path}: a plan of version {raw['version']}, this program reads {VERSION}; plan anew")
        return Plan(**{**raw, "steps": [Step(**step) for step in raw["steps"]]})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `compress plan RECIPE IN --to plan.json` writes one") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a plan of compress ({error})") from None


def indices(kept: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """Masks as lists of indices."""
    return {name: [int(i) for i in np.flatnonzero(mask)] for name, mask in kept.items()}


def shares(mixes: Mapping[str, np.ndarray]) -> dict[str, list[dict[str, float]]]:
    """Matrices `[kept, size]` as the shares in each row that are not zero."""
    return {name: [{str(i): float(row[i]) for i in np.flatnonzero(row)} for row in mix] for name, mix in mixes.items()}


def _on_one_line(text: str) -> str:
    lines, open_ = [], False
    for line in text.split("\n"):
        bare = line.strip()
        if open_ and (bare.rstrip(",").isdigit() or bare in ("]", "],")):
            lines[-1] += bare + (" " if bare.endswith(",") and bare[0] != "]" else "")
            open_ = bare[0] != "]"
        else:
            lines.append(line)
            open_ = bare.endswith("[")
    return "\n".join(lines)
