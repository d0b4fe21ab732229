"""Measures in processes of their own, so that one measurement's memory and caches are not another's.

A benchmark that measures this way calls itself again with the name of a part, and the part prints JSON. The caller
imports no torch: Linux counts what a process had before `exec` to the peak of what it starts.
"""

from __future__ import annotations

import compileall
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """A finished process: wall-clock `seconds`, processor time `cpu`, `peak` resident bytes, what it printed.

    Its own children count too. Where other work shares the machine, processor time is the steadier of the two.
    """

    seconds: float
    cpu: float
    peak: int
    output: str


def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end. Raises SystemExit with its messages when it fails."""
    start = time.perf_counter()
    # Threads that spin at barriers would measure how busy the machine is.
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}
    env = {**os.environ, **quiet, **(environment or {})}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    process = subprocess.Popen([str(word) for word in command], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}\n{output}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, output)


def part(script: str, *arguments: str | Path) -> tuple[dict[str, Any], Run]:
    """Run `script part …` and read the JSON on its last line."""
    finished = run([sys.executable, script, *arguments])
    return json.loads(finished.output.strip().splitlines()[-1]), finished


def compress(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> Run:
    """Run the command itself, compiled as an installed package is."""
    compileall.compile_dir(ROOT / "compress", quiet=1)  # only what changed
    return run([sys.executable, "-m", "compress", *arguments], environment)


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def verdict(value: float, most: float) -> str:
    """Whether a target was met."""
    return f"≤ {most:g}: {'met' if value <= most else 'MISSED'}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a markdown table."""
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
