"""A delta on disk: `delta.safetensors`, what it is of in `delta.json`, and the fine-tuned model's side files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.errors import InputError
from compress.files.ordinary import check_ordinary
from compress.steps.delta.sparse import ABOUT

VERSION = 2
"""Raised when the form changes, or how the digest of a model is made."""
DESCRIPTION, TENSORS = "delta.json", "delta.safetensors"
METADATA = {
    "format": "compress-delta",
    "version": str(VERSION),
    "about": f"Tensors of a fine-tuned model less its base's; delta.json lists how each is stored. A pruned one is "
    f"NAME.values with NAME.gaps or NAME.bits. {ABOUT} One that is stored as NAME alone is the fine-tuned tensor.",
}


@dataclass(frozen=True)
class Stored:
    """One tensor of the fine-tuned model: `dtype` (as safetensors writes it), `shape`, and its `form`: `whole`, or
    `gaps` or `bits`, a sparse difference to the base's tensor `base`, or `same` as that."""

    form: str
    dtype: str
    shape: list[int]
    base: str | None = None


@dataclass(frozen=True)
class Description:
    """What `delta.json` holds. `base` and `tuned`: `name`, `digest` and `bytes`; `config` the fine-tuned model's;
    `found`: what was measured; `recipe` as YAML."""

    base: dict[str, Any]
    tuned: dict[str, Any]
    config: dict[str, Any]
    method: dict[str, Any]
    tensors: dict[str, Stored]
    found: dict[str, Any]
    recipe: str
    version: int = VERSION

    def data(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """As plain values without the tensors one by one, the config and the recipe."""
        return {key: value for key, value in self.data().items() if key not in ("tensors", "config", "recipe")}


def read_description(folder: Path) -> Description:
    """Raises InputError when `folder` holds no delta, or one of another version."""
    file = folder / DESCRIPTION
    check_ordinary(file)
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw["version"] != VERSION:
            raise InputError(f"{file}: a delta of version {raw['version']}, this program reads {VERSION}; prune anew")
        tensors = {name: Stored(**stored) for name, stored in raw.pop("tensors").items()}
        return Description(**raw, tensors=tensors)
    except FileNotFoundError:
        raise InputError(f"{folder}: holds no delta ({DESCRIPTION}); a recipe with `prune: delta` writes one") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file}: not the description of a delta ({error}); prune anew") from None


def write_json(file: Path, data: Any) -> None:
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
