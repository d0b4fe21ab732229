"""Running the command: exit codes, and what is said when something goes wrong."""

from __future__ import annotations

import os
import sys

from cyclopts import CycloptsError

from compress import console
from compress.checkpoint import standing
from compress.checkpoint.signals import Ended, ending_raises
from compress.cli import auto as _auto
from compress.cli import compare as _compare
from compress.cli import delta as _delta
from compress.cli import evaluate as _evaluate
from compress.cli import export as _export
from compress.cli import look as _look
from compress.cli import prune as _prune
from compress.cli import push as _push
from compress.cli import schedule as _schedule
from compress.cli.app import app
from compress.cli.exhausted import exhausted
from compress.cli.words import check_first, explain
from compress.errors import CompressError
from compress.registry import importing
from compress.stream.memory import one_arena

assert (
    _auto and _compare and _delta and _evaluate and _export and _look and _prune and _push and _schedule
)  # they register their commands

USAGE, INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch takes huge pages on Linux: fewer faults, less waste
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # what it would say here is not the user's to mend
    one_arena()  # before the first thread: those of the digest would leave heaps that later threads go on filling
    importing.own_process()
    code = call(sys.argv[1:] if arguments is None else arguments)
    importing.leave()
    sys.exit(code)


def call(arguments: list[str]) -> int:
    """Run the command; returns its exit code. A traceback is printed for bugs only."""
    console.switch()
    try:
        if not arguments:
            app.help_print()
            return USAGE
        check_first(arguments[0], app)
        standing.begin()
        with ending_raises():
            app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        console.complain(f"{explain(error)}; `compress --help` shows how it is used")
        return USAGE
    except CompressError as error:
        console.complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        console.complain(f"interrupted; {standing.sentence()}")
        return INTERRUPTED
    except Ended as ended:
        console.complain(f"interrupted ({ended.name}); {standing.sentence()}")
        return 128 + ended.number
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if (words := exhausted(error)) is None:
            raise
        console.complain(words)
        return USAGE
    return 0
