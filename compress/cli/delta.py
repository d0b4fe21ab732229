"""compress apply-delta, and what a recipe with `prune: delta` shows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from compress import console
from compress.cli.app import Flag, Opening, Talk, app

if TYPE_CHECKING:
    from compress.steps.delta.format import Description


@app.command(name="apply-delta")
def apply_delta(
    base: str,
    delta: Path,
    out: Path,
    /,
    *,
    force: Flag = False,
    opening: Opening = Opening(),
    talk: Talk = Talk(),
) -> None:
    """Add a pruned delta to its base: the fine-tuned model, as an ordinary checkpoint.

    Parameters
    ----------
    base
        The model that the delta was made from: a folder or a hub id.
    delta
        The folder that a recipe with `prune: delta` wrote.
    out
        The folder to write.
    force
        Replace OUT if it exists.
    """
    from compress.steps.delta.fold import apply_delta as fold

    described = fold(base, delta, out, force=force, **asdict(opening))
    console.result(
        f"{out}: {base} with the delta of {described.tuned['name']}", {"out": str(out), **described.summary()}
    )


def show_delta(described: Description, out: Path) -> None:
    """The table of a delta that was written to `out`."""
    from compress.report.delta import delta_table

    summary = described.summary()
    console.result(delta_table(summary), summary)
    console.say(f"wrote {out}; the model again: compress apply-delta {described.base['name']} {out} OUT")
