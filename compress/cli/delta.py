"""compress apply-delta."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from compress import console
from compress.cli.app import Flag, Opening, Talk, app


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
