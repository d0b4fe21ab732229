"""compress RECIPE IN OUT, compress plan, compress apply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App

from compress import console
from compress.cli.app import Flag, Input, Set, Talk, To, Writing, announce, app, loading, options
from compress.cli.push import publish
from compress.files.kinds import kind_of

planning = App(name="plan")
app.command(planning)


@app.default
def prune(
    recipe: Path,
    model: str,
    out: Path,
    /,
    *,
    set: Set = None,
    dry_run: Flag = False,
    push: str | None = None,
    private: Flag = False,
    opening: Input = Input(),
    writing: Writing = Writing(),
    talk: Talk = Talk(),
) -> None:
    """Prune MODEL by RECIPE into the folder OUT; of an .onnx file into another one.

    Parameters
    ----------
    recipe
        The YAML file that says what to remove, and how.
    model
        A folder with config.json and safetensors, of timm's too, or a hub id; an .onnx file; or the folder of a
        pipeline of diffusers.
    out
        The folder, or the .onnx file, to write; it appears when everything is done and verified.
    set
        A field to change: `--set steps.0.remove=30%`. May be given several times.
    dry_run
        Decide and show the plan; write nothing.
    push
        Publish OUT on the hub as ORG/NAME when it is done.
    private
        Make the hub's repository private if it is made.
    """
    announce(f"{recipe} → {model} → {out}")
    with loading():
        from compress.recipe.read import read_recipe

        read = read_recipe(recipe, set or ())
    if push is not None:
        _check_push(push)
    if kind_of(model) is not None:
        _prune_special(read, model, out, push, dry_run, opening, writing)
        return
    if dry_run:
        from compress.checkpoint.write import check_target

        with loading():
            from compress.steps.kinds import kinds_of

        check_target(out, writing.force, [model, *(name for kind in kinds_of(read) for name in kind.inputs)])
        _show_plan(read, model, None, opening, writing)
        return
    with loading():
        from compress.pipeline import run
        from compress.steps.kinds import artifact_step
    made: Any = run(read, model, out, options(opening, writing))
    if (artifact := artifact_step(read)) is not None:
        table, data, last = artifact.show(made, out)
        console.result(table, data)
        console.say(last)
    else:
        finish(made, out)
    if push is not None and made is not None:
        publish(out, push, private=private)


@planning.default
def plan(
    recipe: Path,
    model: str,
    /,
    *,
    to: To = None,
    set: Set = None,
    config_only: bool | None = None,
    opening: Input = Input(),
    writing: Writing = Writing(),
    talk: Talk = Talk(),
) -> None:
    """Decide everything and write the decisions as JSON, for `compress apply`.

    Parameters
    ----------
    recipe
        The YAML file.
    model
        A folder, a hub id or an .onnx file.
    to
        The file to write the plan to; with `--json` and no file it goes to stdout.
    set
        A field to change: `--set steps.0.remove=30%`.
    config_only
        Read or fetch no weights; the plan then says counts and sizes, and cannot be applied. By default so for a folder
        with a config alone, and for a hub id where the recipe reads no weight.
    """
    announce(f"{recipe} → {model}, a plan")
    with loading():
        from compress.recipe.read import read_recipe

        read = read_recipe(recipe, set or ())
    _show_plan(read, model, to, opening, writing, config_only)


@app.command
def apply(
    plan: Path,
    model: str,
    out: Path,
    /,
    *,
    opening: Input = Input(),
    writing: Writing = Writing(),
    talk: Talk = Talk(),
) -> None:
    """Execute a plan on the model that it was made for.

    Parameters
    ----------
    plan
        The JSON that `compress plan` wrote, or plan.json of an output folder.
    model
        The same model that was planned on.
    out
        The folder to write.
    """
    announce(f"{plan} → {model} → {out}")
    if kind_of(model) is not None:
        with loading():
            from compress.api.kinds import special
        finish_special(special(model).apply(plan, Path(model), out, options(opening, writing)), out)
        return
    with loading():
        from compress.pipeline import apply as execute
    finish(execute(plan, model, out, options(opening, writing)), out)


def _prune_special(
    recipe: Any, model: str, out: Path, push: str | None, dry_run: bool, opening: Input, writing: Writing
) -> None:
    from compress.errors import InputError

    if push is not None:
        raise InputError(
            f"--push {push}: what is published is the folder of a transformers model; upload {out} yourself"
        )
    if dry_run:
        _show_plan(recipe, model, None, opening, writing)
        return
    with loading():
        from compress.api.kinds import special
    made = special(model).prune(recipe, Path(model), out, options(opening, writing))
    if kind_of(model) == "pipeline":
        _show_components(made, out)
    else:
        finish_special(made, out)


def _show_components(rows: Any, out: Path) -> None:
    from dataclasses import asdict

    from compress.report.pipelines import components_table

    console.result(components_table(rows), [asdict(row) for row in rows])
    console.say(f"wrote {out}")


def _check_push(repo: str) -> None:
    """Before hours of pruning, not after."""
    from compress.export.hub import check_credentials, check_name

    check_name(repo)
    check_credentials()


def _show_plan(
    recipe: Any, model: str, to: Path | None, opening: Input, writing: Writing, config_only: bool | None = None
) -> None:
    from compress.checkpoint import standing
    from compress.errors import InputError

    with loading():
        from compress.pipeline import plan as decide
        from compress.report.inspection import plan_table
    if to is not None and ((to.exists() and not writing.force) or not to.absolute().parent.is_dir()):
        why = "exists; pass --force to replace it" if to.exists() else "its folder does not exist"
        raise InputError(f"{to}: {why}")
    if kind_of(model) is not None:
        with loading():
            from compress.api.kinds import special
        made = special(model).plan(recipe, Path(model), options(opening, writing))
    else:
        made = decide(recipe, model, options(opening, writing), config_only=config_only)
    console.result(plan_table(made), made.data())
    if to is not None:
        to.write_text(made.dump(), encoding="utf-8")
        standing.add(to.absolute())
        more = "" if made.config_only else f"; execute it with: compress apply {to} {model} OUT"
        console.say(f"wrote {to}{more}")


def finish(report: Any, out: Path) -> None:
    """Show what was made, None where another process does."""
    from compress.report import table

    if report is None:  # not the first process of a distributed run
        return
    console.result(table(report), report)
    for note in report["notes"]:
        console.detail(note)
    before, after = (console.human_bytes(report[side]["bytes"]) for side in ("before", "after"))
    console.say(f"report: {out / 'report.html'}")
    console.say(f"wrote {out}: {before} → {after}; load it with: {report['load']}")


def finish_special(report: Any, out: Path) -> None:
    """Show what became of a model that has no page for its report."""
    from compress.report import table

    console.result(table(report), report)
    for note in report["notes"]:
        console.detail(note)
    before, after = (console.human_bytes(report[side]["bytes"]) for side in ("before", "after"))
    console.say(f"wrote {out}: {before} → {after}; load it with: {report['load']}")
