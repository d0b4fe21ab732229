"""A process that imports once and forks for each model, with an end to its time and memory.

    python -m matrix.nursery module:function [imports …]

Each line of input is a job (entry, folder, seconds, bytes, rehearse) as JSON, each line of output says how the fork
ended: `done`, or what stopped it. What the function says lies in `folder`/said.jsonl, what it prints in `folder`/log. A
job to `rehearse` runs in this process, so that forks find what it imported and what is built once.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from matrix.kind import Entry

LOOK = 0.05
"""Seconds between two looks at a fork."""

SHOWN = 400
"""Characters of a message that are kept."""


def main() -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    path, *more = sys.argv[1:]
    module, _, name = path.partition(":")
    for other in more:
        importlib.import_module(other)
    function = getattr(importlib.import_module(module), name)
    for line in sys.stdin:
        job = json.loads(line)
        if job["rehearse"]:
            with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(Exception):
                function(Entry.read(job["entry"]), Path(job["folder"]), lambda **found: None)
            gc.collect()
            gc.freeze()  # so that forks copy no page for its sake
        print(json.dumps("done" if job["rehearse"] else _watched(function, job)), flush=True)


def _watched(function: Any, job: dict[str, Any]) -> str:
    child = os.fork()
    if child == 0:
        _run(function, job)
    start = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return "done" if code == 0 else f"ended by {signal.Signals(-code).name if code < 0 else code}"
        if time.monotonic() - start > job["seconds"]:
            return _stopped(child, f"took more than {job['seconds']:.0f} s")
        if _resident(child) > job["bytes"]:
            return _stopped(child, f"took more than {job['bytes'] / 1e9:.0f} GB")
        time.sleep(LOOK)


def _stopped(child: int, why: str) -> str:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return why


def _resident(child: int) -> int:
    try:
        pages = Path(f"/proc/{child}/statm").read_text().split()
    except OSError:  # it has just ended, or this is no Linux
        return 0
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")


def _run(function: Any, job: dict[str, Any]) -> None:
    """In the fork: never returns."""
    code = 1
    try:
        folder = Path(job["folder"])
        with (folder / "log").open("a") as log, (folder / "said.jsonl").open("a") as said:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)

            def say(**found: Any) -> None:
                said.write(json.dumps(found) + "\n")
                said.flush()

            try:
                function(Entry.read(job["entry"]), folder, say)
            except Exception as error:
                traceback.print_exc()
                say(why=_message(error))
            code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _message(error: Exception) -> str:
    """An error of compress says itself what is wrong; any other is a crash, shown with its place."""
    text = " ".join(str(error).split())[:SHOWN]
    if type(error).__module__ == "compress.errors":
        return text
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
    return f"CRASH {type(error).__name__}: {text} ({place})"


if __name__ == "__main__":
    main()
