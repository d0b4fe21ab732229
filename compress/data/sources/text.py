"""Text in local files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compress.data.chat import Messages, is_conversation
from compress.errors import InputError
from compress.files.ordinary import check_ordinary
from compress.registry import sources

SUFFIXES = (".txt", ".md", ".jsonl", ".json", ".parquet")


@sources.add("text")
def text(*, path: str, field: str = "text") -> Iterator[str | Messages]:
    """A .txt, .jsonl, .json or .parquet file, or a folder of such; `field` is the column or key that holds the text.

    Plain text is cut at empty lines. In place of a text a conversation may stand: messages of a role and a content.
    Raises InputError for files that cannot be read, with the place.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise InputError(f"{path}: no such file or folder; calibrate.data names where the text is")
    files = sorted(file for file in root.rglob("*") if file.suffix in SUFFIXES) if root.is_dir() else [root]
    if not files:
        raise InputError(f"{path}: no file that ends in {', '.join(SUFFIXES)}")
    for file in files:
        if file.suffix == ".parquet":
            yield from _parquet(file, field)
        elif file.suffix in (".jsonl", ".json"):
            yield from _json(file, field)
        else:
            yield from (part.strip() for part in re.split(r"\n\s*\n", _decoded(file)) if part.strip())


def _decoded(file: Path) -> str:
    check_ordinary(file)
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.start} is not UTF-8; convert the file") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None


def _json(file: Path, field: str) -> Iterator[str | Messages]:
    """One object a line, or one list of objects."""
    whole = file.suffix == ".json" and _decoded(file).lstrip()[:1] == "["
    try:
        lines: list[Any] = json.loads(_decoded(file)) if whole else _decoded(file).splitlines()
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON ({error})") from None
    for number, line in enumerate(lines, 1):
        place = f"{file}:{number}"
        if isinstance(line, str) and not whole:
            if not line.strip():
                continue
            try:
                line = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{place}: not valid JSON ({error})") from None
        value = line if isinstance(line, str) else line.get(field) if isinstance(line, dict) else None
        if not (isinstance(value, str) or is_conversation(value)):
            known = f"; there are {', '.join(map(str, line))}" if isinstance(line, dict) else ""
            raise InputError(f"{place}: no text under {field!r}{known}; write data: {{text: {{path: …, field: …}}}}")
        yield value


def _parquet(file: Path, field: str) -> Iterator[str | Messages]:
    try:
        from pyarrow import ArrowException, ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InputError(f"{file}: reading parquet needs pyarrow; pip install 'compress-models[data]'") from None
    try:
        check_ordinary(file)
        opened = ParquetFile(file)
        if field not in opened.schema_arrow.names:
            known = ", ".join(opened.schema_arrow.names)
            raise InputError(f"{file}: no column {field!r}; there are {known}; write data: {{text: {{field: …}}}}")
        for batch in opened.iter_batches(columns=[field]):
            values = batch.column(0).to_pylist()
            yield from (value for value in values if isinstance(value, str) or is_conversation(value))
    except (ArrowInvalid, ArrowException) as error:
        raise InputError(f"{file}: not a parquet file ({str(error).partition(chr(10))[0]})") from None
