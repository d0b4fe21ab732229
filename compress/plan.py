"""The plan: every decision as data, before a weight is written. It can be read, compared and replayed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compress.errors import InputError

VERSION = 1


@dataclass(frozen=True)
class Step:
    """What one step keeps: family name → kept group indices, for every family that loses some.

    `sizes` are the families' sizes before the step. `edits` are config values that change, (old, new) by dotted path.
    """

    kept: dict[str, list[int]]
    sizes: dict[str, int]
    edits: dict[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All of a run's decisions.

    `model` is the input as it was named, `digest` its fingerprint, `recipe` the YAML with every default written out.
    `opens_with` is `transformers` or `remote code`; `how` is the line of Python that loads the result. `before` and
    `after` count params, flops (of one sequence of `length` tokens) and bytes.
    """

    model: str
    digest: str
    recipe: str
    steps: tuple[Step, ...]
    opens_with: str
    how: str
    before: dict[str, int]
    after: dict[str, int]
    notes: tuple[str, ...] = ()
    version: int = VERSION

    def write(self, file: Path) -> None:
        """As JSON."""
        file.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_plan(file: Path) -> Plan:
    """Read a plan back. Raises InputError where the file is none."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        steps = tuple(
            Step(s["kept"], s["sizes"], {k: (v[0], v[1]) for k, v in s["edits"].items()}) for s in data.pop("steps")
        )
        plan = Plan(**{**data, "steps": steps, "notes": tuple(data["notes"])})
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; `compress plan RECIPE IN -o {file}` writes one") from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{file}: not a plan of this command ({error}); write it anew with `compress plan`") from None
    if plan.version != VERSION:
        raise InputError(f"{file}: version {plan.version}, this command reads {VERSION}; write it anew")
    return plan
