"""Which files of a folder hold the weights, as stock loaders choose them."""

from __future__ import annotations

import json
from pathlib import Path

from compress.checkpoint.header import AGAIN
from compress.checkpoint.seen import Seen, Stamp
from compress.checkpoint.side_files import WEIGHTS
from compress.errors import InputError
from compress.files.ordinary import check_ordinary, is_name

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"


def read_small(file: Path) -> tuple[str, Seen]:
    """The text of a small file."""
    check_ordinary(file)
    stamp = Stamp.of(file)
    raw = file.read_bytes()
    return raw.decode("utf-8"), Seen(stamp, raw)


def weight_files(folder: Path, name: str, papers: dict[Path, Seen]) -> tuple[list[Path], dict[str, str] | None]:
    """The files of the kind `name`, and the index when there is one (which joins the `papers`).

    Raises InputError when the index is corrupt, or a shard that it names is missing.
    """
    check_ordinary(folder / name)
    if (folder / name).exists():
        return [folder / name], None
    file = folder / f"{name}.index.json"
    if not file.exists():
        return [], None
    try:
        text, papers[file] = read_small(file)
        index = json.loads(text)["weight_map"]
        shards = list(dict.fromkeys(index.values()))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{file}: corrupt, no weight_map can be read; {AGAIN}") from None
    for shard in shards:
        if isinstance(shard, str) and shard.strip(".") and Path(shard).name != shard and "\0" not in shard:
            raise InputError(f"{file}: names the shard {shard[:200]!r}, which is not in the folder; {AGAIN}")
        if not is_name(shard):
            raise InputError(f"{file}: names the shard {_shortened(shard)}, which is no file name; {AGAIN}")
    for shard in shards:
        check_ordinary(folder / shard)
    if missing := [shard for shard in sorted(shards) if not (folder / shard).exists()]:
        raise InputError(f"{folder}: {len(missing)} of {len(shards)} shards missing: {', '.join(missing)}; {AGAIN}")
    if not shards:
        raise InputError(f"{file}: names no tensor; {AGAIN}")
    return [folder / shard for shard in sorted(shards)], index


def lacks_weights(folder: Path) -> bool:
    """Whether nothing in the folder holds weights, by its name, nor says where they are."""
    return not any(path.suffix in WEIGHTS or path.name.endswith(".index.json") for path in folder.iterdir())


def no_weights(folder: Path) -> str:
    """What to say of a folder without any."""
    others = sorted(path.name for path in folder.iterdir() if path.suffix in WEIGHTS)
    found = f"; found {', '.join(others[:5])}, which stock loaders do not open either" if others else ""
    cure = "" if found else "; a config alone is enough for `compress inspect` and `compress plan`, not for more"
    return f"{folder}: no {SAFE} or {SAFE}.index.json{found}{cure}"


def _shortened(shard: object) -> str:
    text = repr(shard)
    return text if len(text) < 100 else f"{text[:50]}… ({len(text)} characters)"
