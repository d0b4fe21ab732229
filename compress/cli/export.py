"""compress export: a folder in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from compress import console
from compress.cli.app import Flag, Input, Talk, announce, app, loading

Settings = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]
Out = Annotated[Path | None, Parameter(name=["--out", "-o"])]


@app.command(name="export")
def export(
    model: str,
    /,
    *settings: Settings,
    to: str = "onnx",
    out: Out = None,
    force: Flag = False,
    opening: Input = Input(),
    talk: Talk = Talk(),
) -> None:
    """Write MODEL in another format, and check that it still computes the same.

    Settings of the format follow as `--KEY VALUE`, such as `--batch 4`, `--dynamic none`, `--no-cache`;
    `compress ls formats` lists them.

    Parameters
    ----------
    model
        A folder or a hub id.
    to
        The format, by name.
    out
        The folder to write; MODEL/FORMAT by default.
    force
        Replace the folder if it exists.
    """
    announce(f"{model} → {out or Path(model) / to}, as {to}")
    with loading():
        from compress.checkpoint.open import open_checkpoint
        from compress.checkpoint.target import placed
        from compress.checkpoint.write import check_apart, new_folder
        from compress.errors import InputError
        from compress.export.write import write_export

        asked = _settings(to, settings)
    if out is None and not Path(model).expanduser().is_dir():
        raise InputError(f"{model}: is no folder to write {to} into; name one with -o")
    more: dict[str, Any] = {"trust_remote_code": opening.trust_remote_code, "allow_pickle": opening.allow_pickle}
    beside = Path(model).expanduser() / to
    target = out if out is not None else beside
    apart = placed(target) != placed(beside)  # MODEL/FORMAT is the one place inside a model
    with new_folder(target, force=force, inputs=[model] if apart else []) as folder:
        checkpoint = open_checkpoint(model, revision=opening.revision, base=opening.base, **more)
        check_apart(target, [checkpoint.folder] if apart else [])  # of a hub id it is known only now
        made = write_export(to, checkpoint, folder, asked)
    console.result(_shown(target, made.lines), {"folder": str(target), **made.data})


def _settings(name: str, words: tuple[str, ...]) -> Any:
    """The settings of the format `name` from `--key value`, `--key=value`, `--key` and `--no-key`."""
    from pydantic import ValidationError

    from compress.errors import InputError
    from compress.recipe.export import settings_of
    from compress.recipe.source import value_of
    from compress.registry import explain

    try:
        own = settings_of(name)
    except InputError as error:
        raise InputError(f"--to {name}: {error}; the folder to write is named with -o") from None
    given: dict[str, Any] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            raise InputError(f"{word!r} is more than the command takes; write compress export MODEL --to FORMAT")
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals and left and not left[0].startswith("--"):
            value = left.pop(0)
        elif not equals:
            value = "false" if key.startswith("no-") else "true"
            key = key.removeprefix("no-")
        try:
            given[key] = value_of(value)
        except InputError as error:
            raise InputError(f"--{key} {value}: {error}") from None
    try:
        return own.model_validate(given)
    except ValidationError as error:
        wrong = explain(error, {(): own.model_fields}, what="setting")
        raise InputError("\n".join(_flag(given, place, text) for place, text in wrong)) from None


def _flag(given: dict[str, Any], place: tuple[int | str, ...], text: str) -> str:
    """A mistake behind the flag that it is about."""
    if not place:
        return text
    key = str(place[0])
    value = "" if given.get(key) is True else f" {given.get(key)}"
    return f"--{key}{value}: {text}"


def _shown(folder: Path, lines: list[tuple[str, str]]) -> Any:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, title=escape(str(folder)), pad_edge=False)
    drawn.add_column("")
    drawn.add_column("", justify="right", no_wrap=True)
    for label, value in lines:
        drawn.add_row(escape(label), escape(value))
    return drawn
