"""compress compare RECIPES… IN -o DIR."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from compress import console
from compress.cli.app import Evaluate, Flag, Input, Set, Talk, announce, app, loading


@app.command
def compare(
    *recipes_and_model: str,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    sweep: Annotated[list[str] | None, Parameter(negative=())] = None,
    set: Set = None,
    latency: bool = True,
    evaluate: Evaluate = "quick",
    keep: bool = True,
    force: Flag = False,
    device: str = "auto",
    opening: Input = Input(),
    talk: Talk = Talk(),
) -> None:
    """Run many recipes on one model: RECIPES… IN. One table, and quality against parameters, FLOPs and latency.

    Parameters
    ----------
    recipes_and_model
        Recipes or folders of recipes, and last the model: a folder or a hub id.
    out
        The folder to write compare.html, compare.json, compare.png and each recipe's model to.
    sweep
        A field and its values: `--sweep steps.0.remove=10%,20%`. Given several times, every combination is run.
    set
        A field to change in every recipe: `--set seed=1`.
    latency
        Measure latency too.
    evaluate
        Measure quality and latency: for about 20 s a recipe (quick), or fully.
    keep
        Keep the models' weights; without, their reports and plans only.
    force
        Replace what lies in DIR.
    device
        Where to calibrate: auto, cpu, cuda, cuda:1, mps.
    """
    from compress.errors import InputError

    if len(recipes_and_model) < 2:
        raise InputError("compare: name at least one recipe and the model: compress compare RECIPES… IN -o DIR")
    *recipes, model = recipes_and_model
    announce(f"{', '.join(recipes)} → {model} → {out}")
    with loading():
        from compress.comparison.candidates import candidates

        chosen = candidates([Path(recipe) for recipe in recipes], sweep or (), set or ())
    with loading():
        from dataclasses import asdict

        from compress.comparison.run import compare as run
        from compress.comparison.write import comparison_table, write_comparison
        from compress.execution.run import Options

    options = Options(device=device, force=force, evaluate=evaluate, latency=latency, **asdict(opening))
    found = run(chosen, model, out, options, keep=keep)
    page = write_comparison(out, found)
    console.result(comparison_table(found), found)
    console.say(f"wrote {page}")
