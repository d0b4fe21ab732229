"""The command's frame: the application, and the parameters that commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from compress import console
from compress.registry.importing import uncollected
from compress.version import __version__

Flag = Annotated[bool, Parameter(negative=())]
Evaluate = Annotated[Literal["quick", "full"] | None, Parameter(negative="--no-evaluate")]

app = App(
    name="compress",
    help="""Prune a transformer by a recipe; the result is an ordinary checkpoint.

    compress RECIPE IN OUT: IN is a folder or a hub id, OUT the folder to write.

    Exit codes: 0 done, 1 a bug, 2 recipe or usage, 3 model not understood, 4 budget cannot be met, 5 verification
    failed (kept as OUT.partial), 130 interrupted (129 by SIGHUP, 143 by SIGTERM).""",
    version=__version__,
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
class Input(Opening):
    """How the input model is opened where it may be a LoRA adapter."""

    base: str | None = None
    "Of a LoRA adapter: the model that it is merged into, where its config does not name it."


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
    evaluate: Evaluate = "quick"
    "Measure perplexity (or similarity of embeddings) and latency, before and after: for about 20 s (quick), or fully."
    include: Annotated[list[str] | None, Parameter(negative=())] = None
    "Something beside the weights that OUT gets although no model is known to need it: a file, a folder, a pattern."
    resume: Flag = False
    "Go on behind the last finished step of an interrupted run. Finished statistics are always used again."


LONGEST = 400
"""Characters of what the first line says."""


def announce(what: str) -> None:
    """The first line, before anything heavy is imported: what the command is about to do."""
    shown = what if len(what) <= LONGEST else f"{what[: LONGEST // 2]}…{what[-LONGEST // 4 :]}"
    console.say(f"compress {__version__}: {shown}")


@contextmanager
def loading() -> Iterator[None]:
    """Around imports of what needs torch, which can take a while."""
    with console.working("loading PyTorch"), uncollected(freeze=True):
        yield


To = Annotated[Path | None, Parameter(name=["--to", "-o"])]
Set = Annotated[list[str] | None, Parameter(name="--set", negative=())]


def options(opening: Input, writing: Writing) -> Any:
    """The same as the pipeline takes it."""
    from compress.pipeline import Options

    return Options(
        device=writing.device,
        force=writing.force,
        evaluate=writing.evaluate,
        resume=writing.resume,
        include=tuple(writing.include or ()),
        **asdict(opening),
    )
