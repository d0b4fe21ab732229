"""What lies beside the weights of an output folder: its config, and the files of the input that are still true."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from compress.checkpoint.code import OUR_MODULE, OUR_TYPE, config_without_code, is_code, without_code

MODELING_FILE = Path(__file__).parent.parent / "model" / f"{OUR_MODULE}.py"

WRITTEN = {"config.json", "README.md", "recipe.yaml", "plan.json", "report.json", "report.html", MODELING_FILE.name}
"""Files that every output has of its own, or that are no longer true."""


def write_config(folder: Path, config: dict[str, Any], *, trust_remote_code: bool) -> None:
    """Write config.json into `folder`; keys that name code only where that is trusted.

    A folder of this package's own kind gets this package's modeling file too, whatever the input's says.
    """
    config = config if trust_remote_code else without_code(config)
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if config.get("model_type") == OUR_TYPE:
        shutil.copyfile(MODELING_FILE, folder / MODELING_FILE.name)


def copy_beside(
    files: Iterable[Path],
    source: Path,
    folder: Path,
    *,
    trust_remote_code: bool,
    changed: Mapping[str, str | None] | None = None,
) -> None:
    """Copy `files`, which lie below `source`, into `folder`; code, and what names it, only where that is trusted.

    `changed`: path below `source` → the text to write in a file's place, None where none is.
    """
    changed = changed or {}
    for file in files:
        inside = file.relative_to(source)
        if inside.as_posix() in WRITTEN or (is_code(inside) and not trust_remote_code):
            continue
        new = changed.get(inside.as_posix())
        if new is None and inside.as_posix() in changed:
            continue
        target = folder / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        if new is not None:
            target.write_text(new, encoding="utf-8")
        else:
            shutil.copyfile(file, target)
        if not trust_remote_code and (text := config_without_code(target)) is not None:
            target.write_text(text, encoding="utf-8")
