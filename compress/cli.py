"""The command `compress`. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from compress import console
from compress.errors import CompressError

USAGE, INTERRUPTED = 2, 130
Flag = Annotated[bool, Parameter(negative=())]

app = App(
    name="compress",
    help="""Prune a transformer by a recipe; the result is an ordinary checkpoint.

    compress RECIPE IN OUT: IN is a folder or a hub id, OUT the folder to write.

    Exit codes: 0 done, 1 a bug, 2 recipe or usage, 3 model not understood, 4 budget cannot be met, 5 verification
    failed (kept as OUT.partial), 130 interrupted.""",
    version_flags=["--version"],
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # `call` says what it means
)


@Parameter(name="*")
@dataclass(frozen=True)
class Opening:
    """How the input model is opened."""

    trust_remote_code: Flag = False
    "Run code that comes with the checkpoint."
    revision: str | None = None
    "Branch, tag or commit of a hub model."
    allow_pickle: Flag = False
    "Open weights that are pickled; a pickle can run code."


@Parameter(name="*")
@dataclass(frozen=True)
class Talk:
    """What is printed."""

    json: Flag = False
    "The result as JSON on stdout."
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())] = False
    "Warnings and errors only."
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative=())] = False
    "Details too."

    def __post_init__(self) -> None:
        console.switch(quiet=self.quiet, verbose=self.verbose, json=self.json)


@Parameter(name="*")
@dataclass(frozen=True)
class Writing:
    """How the output is made."""

    force: Flag = False
    "Replace OUT if it exists."
    device: str = "auto"
    "Where to calibrate: auto, cpu, cuda, cuda:1, mps."
    evaluate: bool = True
    "Measure perplexity (or likeness of embeddings) and latency, before and after."
    resume: Flag = False
    "Go on where an interrupted run stopped. Runs always do: finished statistics are kept in COMPRESS_CACHE."


Set = Annotated[list[str] | None, Parameter(name="--set", negative=())]


@app.default
def prune(
    recipe: Path,
    model: str,
    out: Path,
    /,
    *,
    set: Set = None,
    dry_run: Flag = False,
    opening: Opening = Opening(),
    writing: Writing = Writing(),
    talk: Talk = Talk(),
) -> None:
    """Prune MODEL by RECIPE into the folder OUT.

    Parameters
    ----------
    recipe
        The YAML file that says what to remove, and how.
    model
        A folder with config.json and safetensors, or a hub id.
    out
        The folder to write; it appears when everything is done and verified.
    set
        A field to change: `--set steps.0.remove=30%`. May be given several times.
    dry_run
        Decide and show the plan; write nothing.
    """
    from compress.recipe.read import read_recipe

    read = read_recipe(recipe, set or ())
    if dry_run:
        from compress.checkpoint.write import check_target

        check_target(out, writing.force)
        _show_plan(read, model, None, opening, writing)
        return
    from compress.pipeline import run

    _finish(run(read, model, out, _options(opening, writing)), out)


@app.command
def plan(
    recipe: Path,
    model: str,
    /,
    *,
    to: Path | None = None,
    set: Set = None,
    opening: Opening = Opening(),
    writing: Writing = Writing(),
    talk: Talk = Talk(),
) -> None:
    """Decide everything and write the decisions as JSON, for `compress apply`.

    Parameters
    ----------
    recipe
        The YAML file.
    model
        A folder or a hub id.
    to
        The file to write the plan to; with `--json` and no file it goes to stdout.
    set
        A field to change: `--set steps.0.remove=30%`.
    """
    from compress.recipe.read import read_recipe

    _show_plan(read_recipe(recipe, set or ()), model, to, opening, writing)


@app.command
def apply(
    plan: Path,
    model: str,
    out: Path,
    /,
    *,
    opening: Opening = Opening(),
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
    from compress.pipeline import apply as execute

    _finish(execute(plan, model, out, _options(opening, writing)), out)


@app.command
def inspect(model: str, /, *, opening: Opening = Opening(), talk: Talk = Talk()) -> None:
    """Show what of a model can be pruned: families of groups, what each is worth, and what is pinned and why.

    Parameters
    ----------
    model
        A folder or a hub id.
    """
    from compress.inspect import inspect_model

    console.result(*inspect_model(model, **asdict(opening)))


@app.command
def report(folder: Path, /, *, talk: Talk = Talk()) -> None:
    """Show the report of an output folder again; nothing is measured.

    Parameters
    ----------
    folder
        A folder that this program wrote.
    """
    from compress.inspect import read_report

    console.result(*read_report(folder))


@app.command
def ls(
    what: Literal["criteria", "allocators", "repairs", "sources", "statistics", "recipes", "schema"] | None = None,
    /,
    *,
    talk: Talk = Talk(),
) -> None:
    """List what a recipe may name, the recipes that ship, or the JSON schema of a recipe.

    Parameters
    ----------
    what
        One list; all of them without.
    """
    from compress.listing import listing

    console.result(*listing(what))


def _options(opening: Opening, writing: Writing) -> Any:
    from compress.pipeline import Options

    return Options(device=writing.device, force=writing.force, evaluate=writing.evaluate, **asdict(opening))


def _show_plan(recipe: Any, model: str, to: Path | None, opening: Opening, writing: Writing) -> None:
    from compress.errors import InputError
    from compress.inspect import plan_table
    from compress.pipeline import plan as decide

    if to is not None and ((to.exists() and not writing.force) or not to.absolute().parent.is_dir()):
        why = "exists; pass --force to replace it" if to.exists() else "its folder does not exist"
        raise InputError(f"{to}: {why}")
    made = decide(recipe, model, _options(opening, writing))
    console.result(plan_table(made), made.data())
    if to is not None:
        to.write_text(made.dump(), encoding="utf-8")
        console.say(f"wrote {to}; execute it with: compress apply {to} {model} OUT")


def _finish(report: Any, out: Path) -> None:
    from compress.export import table

    if report is None:  # not the first process of a distributed run
        return
    console.result(table(report), report)
    for note in report["notes"]:
        console.detail(note)
    before, after = (console.human_bytes(report[side]["bytes"]) for side in ("before", "after"))
    console.say(f"report: {out / 'report.html'}")
    console.say(f"wrote {out}: {before} → {after}; load it with: {report['load']}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # what it would say here is not the user's to mend
    sys.exit(call(sys.argv[1:] if arguments is None else arguments))


def call(arguments: list[str]) -> int:
    """Run the command; returns its exit code. A traceback is printed for bugs only."""
    console.switch()
    try:
        if not arguments:
            app.help_print()
            return USAGE
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        console.complain(f"{_plain(error)}; `compress --help` shows how it is used")
        return USAGE
    except CompressError as error:
        console.complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        console.complain("interrupted; nothing was written. The same command goes on from the statistics it finished")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _plain(error: CycloptsError) -> str:
    return " ".join(str(error).split()).rstrip(".")
