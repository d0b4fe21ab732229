"""A plan: every decision as data, before a byte of the result is written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compress.errors import InputError
from compress.files.ordinary import check_ordinary

VERSION = 3
"""Raised when the form changes, or how the digest of a model is made."""


@dataclass(frozen=True)
class PlannedStep:
    """What one step decided.

    `kind`: the name of its kind (`compress ls steps`). `decision`: what the kind needs to execute it again, its own
    JSON. `before` and `after` hold `params`, `flops` (of `flops_length` tokens) and `bytes`. `config`: edited values,
    path → [old, new]. `opens_with` has `transformers` and `remote_code` (whether stock classes do, whether the modeling
    file must), `who` and `how`.
    """

    kind: str
    decision: dict[str, Any]
    before: dict[str, int]
    after: dict[str, int]
    config: dict[str, list[Any]]
    opens_with: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """`model` as it was named and its `digest`; `recipe` as YAML with every default; one entry of `steps` each.

    One made from a config alone, `config_only`, cannot be executed.
    """

    model: str
    digest: str
    recipe: str
    steps: list[PlannedStep]
    version: int = VERSION
    config_only: bool = False

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
        return Plan(**{**raw, "steps": [PlannedStep(**step) for step in raw["steps"]]})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `compress plan RECIPE IN --to plan.json` writes one") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a plan of compress ({error})") from None


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
