"""Code that a checkpoint brings or asks for, and what is left of its files without it.

This is the one place that knows where transformers look: python files, `auto_map` and its like, and attention or
experts of a hub kernel (`owner/name`), which is fetched and run when a model is built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUR_TYPE, OUR_MODULE = "compressed", "modeling_compress"
"""`model_type` and modeling file of the folders of this package's own kind, whose code is always this package's."""

CONFIGS = {
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "adapter_config.json",
}
"""Files whose keys may name code."""

KEYS = {"auto_map", "auto_mapping", "custom_pipelines", "custom_generate"}
CHOICES = {"attn_implementation", "experts_implementation"}
"""What may name a hub kernel, with or without a leading underscore."""


def without_code(data: dict[str, Any]) -> dict[str, Any]:
    """The content of a config less everything that names code, at any depth.

    In a config of this package's own kind the classes of its modeling file stay, as that file is written anew.
    """
    own = data.get("model_type") == OUR_TYPE
    return {key: _cleaned(value) for key, value in data.items() if not _names_code(key, value, own)}


def code_in(folder: Path) -> list[str]:
    """What of a checkpoint is code or asks for some, as its user finds it: `file.py`, `config.json: auto_map`."""
    found = []
    for name in sorted(CONFIGS):
        if (data := _read(folder / name)) is not None:
            found += [f"{name}: {key}" for key in dict.fromkeys(_asking(data))]
    files = (file.relative_to(folder) for file in sorted(folder.rglob("*.py")))
    return found + [str(inside) for inside in files if is_code(inside) and inside.parts[0][0] != "."]


def is_code(inside: Path) -> bool:
    """Whether a file of a checkpoint is code; this package's modeling file is not the checkpoint's."""
    return inside.suffix == ".py" and inside.name != f"{OUR_MODULE}.py"


def config_without_code(file: Path) -> str | None:
    """The text of a config file less what names code, None for a file that has no such thing."""
    if file.name not in CONFIGS or (data := _read(file)) is None or not any(_asking(data)):
        return None
    return json.dumps(without_code(data), indent=2, ensure_ascii=False) + "\n"


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return without_code(value)
    return [_cleaned(item) for item in value] if isinstance(value, list) else value


def _names_code(key: str, value: Any, own: bool) -> bool:
    if key == "auto_map" and own and isinstance(value, dict):
        return not all(isinstance(name, str) and re.fullmatch(rf"{OUR_MODULE}\.\w+", name) for name in value.values())
    return key in KEYS or (str(key).removeprefix("_") in CHOICES and _is_kernel(value))  # labels go by numbers


def _is_kernel(value: Any) -> bool:
    """`owner/name`, also behind `paged|`; or one for each part of the model."""
    return any(map(_is_kernel, value.values())) if isinstance(value, dict) else isinstance(value, str) and "/" in value


def _asking(data: Any) -> Iterator[str]:
    if isinstance(data, list):
        for item in data:
            yield from _asking(item)
    elif isinstance(data, dict):
        own = data.get("model_type") == OUR_TYPE
        for key, value in data.items():
            if _names_code(key, value, own):
                yield key
            else:
                yield from _asking(value)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # whoever needs the file says what is wrong with it
        return None
    return data if isinstance(data, dict) else None
