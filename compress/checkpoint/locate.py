"""Where a model lies, from what a command calls it by, and what its config.json says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compress.checkpoint.header import AGAIN
from compress.checkpoint.hub import fetch, fetch_config
from compress.checkpoint.quantised import check_gguf
from compress.checkpoint.seen import Seen
from compress.checkpoint.weight_files import lacks_weights, read_small
from compress.errors import InputError
from compress.files.ordinary import check_ordinary, is_path
from compress.registry import did_you_mean

CONFIG = "config.json"


def is_hub_id(where: str | Path) -> bool:
    """Whether `where` is read as a model of the hub: no folder or file has that name, and none is meant."""
    if not str(where) or not is_path(Path(where)) or Path(where).expanduser().exists():
        return False
    name = str(where).partition("@")[0]
    return not (isinstance(where, Path) or str(where).startswith(("/", ".", "~")) or name.count("/") > 1 or not name)


def is_config_alone(where: str | Path) -> bool:
    """Whether no weights of `where` are at hand: a folder without any, or a model of the hub, before it is fetched."""
    folder = Path(where).expanduser() if str(where) and is_path(Path(where)) else None
    return is_hub_id(where) or (folder is not None and folder.is_dir() and lacks_weights(folder))


def model_folder(
    where: str | Path,
    revision: str | None = None,
    *,
    allow_pickle: bool = False,
    config_only: bool = False,
    code: bool = False,
) -> Path:
    """The folder `where`, or the one in the hub's cache that holds the model `where` (`owner/name[@revision]`).

    With `config_only` no weights are fetched from the hub; files of `code` only where they are wanted. Raises
    InputError when there is no such folder or model.
    """
    if not str(where) or not is_path(Path(where)):
        shown = repr(str(where)[:80])
        raise InputError(f"{shown}: names no folder; give the folder of a model, or a hub id (owner/name)")
    folder = Path(where).expanduser()
    if folder.is_dir():
        return folder.absolute()
    if folder.exists():
        check_gguf(folder)
        raise InputError(f"{where}: a model is a folder with config.json, this is a file; give {folder.parent}")
    if not is_hub_id(where):
        near = ""
        if folder.parent.is_dir():
            near = did_you_mean(folder.name, (path.name for path in folder.parent.iterdir() if path.is_dir()))
        raise InputError(f"{where}: no such folder{near}")
    name, _, tagged = str(where).partition("@")
    if config_only:
        return fetch_config(name, revision or tagged or None, code=code)
    return fetch(name, revision or tagged or None, allow_pickle=allow_pickle)


def read_config(folder: Path) -> tuple[dict[str, Any], Seen]:
    """What config.json says, and what was seen of the file. Raises InputError when it is missing or no JSON object."""
    file = folder / CONFIG
    check_ordinary(file)
    if not file.exists():
        if (folder / "adapter_config.json").exists():
            raise InputError(
                f"{folder}: an adapter, whose tensors are needed too; inspect its base model, or pass --base"
            )
        below = [path.parent.name for path in sorted(folder.glob("*/config.json"))]
        hint = f"; perhaps you mean {folder / below[0]}" if below else "; give the folder that holds a model"
        raise InputError(f"{folder}: no config.json{hint}")
    try:
        text, seen = read_small(file)
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON ({error}); {AGAIN}") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    if not isinstance(config, dict):
        raise InputError(f"{file}: not a JSON object; {AGAIN}")
    return config, seen
