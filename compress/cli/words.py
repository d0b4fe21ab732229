"""Words of the command line that are no command and no recipe, too few of them or too many, said so that it helps."""

from __future__ import annotations

from inspect import Parameter, signature
from pathlib import Path

from cyclopts import App, CycloptsError
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError

from compress.errors import InputError
from compress.files import shipped
from compress.registry import did_you_mean

FORM = "compress RECIPE IN OUT"
PRUNING = ("prune", "run", "compress")
"""What other programs call it; here it has no word."""


def check_first(word: str, app: App) -> None:
    """Raise InputError where the first word is neither a command nor, by its looks, a recipe."""
    commands = [name for name in app if not name.startswith("-")]
    if word.startswith("-") or word in commands or Path(word).suffix or "/" in word:
        return
    if Path(word).exists() or shipped.shipped(word) is not None:
        return
    if word in PRUNING:
        raise InputError(f"no command {word!r}: pruning needs none, write {FORM} ({shipped.which()})")
    near = did_you_mean(word, [*commands, *shipped.names()])
    raise InputError(f"no command {word!r}{near} ({shipped.which()})")


def explain(error: CycloptsError) -> str:
    """The error on one line; of missing words and words too many, with the form that the command has."""
    form = _form(error)
    if isinstance(error, MissingArgumentError) and error.argument is not None and form is not None:
        return f"{error.argument.name} is missing; write {form}"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens and form is not None:
        return f"{' '.join(error.unused_tokens)!r} is more than the command takes; write {form}"
    return " ".join(str(error).split()).rstrip(".")


def _form(error: CycloptsError) -> str | None:
    """`compress plan RECIPE MODEL`; None where no command was found."""
    if error.target is None:
        return None
    words = ["compress", *(error.command_chain or ())]
    for parameter in signature(error.target).parameters.values():
        name = parameter.name.upper()
        if parameter.kind is Parameter.VAR_POSITIONAL:
            words.append(f"{name}…")
        elif parameter.default is Parameter.empty:
            words.append(f"--{parameter.name} {name}" if parameter.kind is Parameter.KEYWORD_ONLY else name)
    return " ".join(words)
