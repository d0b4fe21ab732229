"""compress push FOLDER ORG/NAME."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress import console
from compress.cli.app import Flag, Talk, app


@app.command
def push(folder: Path, repo: str, /, *, private: Flag = False, dry_run: Flag = False, talk: Talk = Talk()) -> None:
    """Publish FOLDER on the hub as REPO, with its model card, in one commit.

    Parameters
    ----------
    folder
        A folder that this program wrote.
    repo
        ORG/NAME; made if it does not exist.
    private
        Make the repository private if it is made.
    dry_run
        Show the files and the card; send nothing. Needs no network and no token.
    """
    publish(folder, repo, private=private, dry_run=dry_run)


def publish(folder: Path, repo: str, *, private: bool = False, dry_run: bool = False) -> None:
    """Send a folder and say where it is, or only show what would be sent."""
    from compress.export.hub import prepare
    from compress.export.hub import push as send

    upload = prepare(folder, repo)
    if dry_run:
        data: dict[str, Any] = {"repo": repo, "files": dict(upload.files), "card": upload.card}
        console.result(_shown(upload), data)
    else:
        console.say(f"published: {send(folder, upload, private=private)}")


def _shown(upload: Any) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=f"{upload.repo}: {console.human_bytes(upload.bytes)}", pad_edge=False)
    table.add_column("file")
    table.add_column("size", justify="right")
    for path, size in upload.files:
        table.add_row(Text(path), console.human_bytes(size))
    return Group(table, Text(upload.card))
