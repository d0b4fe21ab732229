"""A process that has everything imported, and runs each command it is asked for in a fork of itself.

One JSON object a line on stdin: `arguments`, `folder` to run in, `env`, `memory` (bytes of address space more than it
has, or null), `seconds`. The answer: `code`, or null for one that had to be killed. What the command says goes to the
files `stdout` and `stderr` that are named. The first line is a command that works, run here: it warms everything up.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

PAUSE = 0.002


def main() -> None:
    import torch

    import compress.pipeline
    import compress.report.inspection
    from compress.cli.call import call

    torch.set_num_threads(1)
    first = json.loads(sys.stdin.readline())
    os.chdir(first["folder"])
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        assert call(first["arguments"]) == 0 and compress.report.inspection and compress.pipeline
    gc.collect()
    gc.freeze()  # what is shared with the forks is not looked through in each, which would copy it
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps({"code": _run(json.loads(line), call)}), flush=True)


def _run(asked: dict[str, Any], call: Any) -> int | None:
    child = os.fork()
    if not child:
        gc.disable()
        code = 1
        try:
            _settle(asked)
            code = call(asked["arguments"])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + asked["seconds"]
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(PAUSE)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _settle(asked: dict[str, Any]) -> None:
    os.setsid()
    os.chdir(asked["folder"])
    os.environ.update(asked["env"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if asked["memory"] is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + asked["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
