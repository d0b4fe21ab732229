"""What of compress's promises holds for every architecture that there is: docs/coverage.md and docs/pinned.md.

    python tools/bench/coverage.py                       # every model without a result, then both pages; an hour
    python tools/bench/coverage.py --only decoders bert  # kinds, groups or models by name
    python tools/bench/coverage.py --only bert --again   # those that have a result too
    python tools/bench/coverage.py --read                # the pages again
    python tools/bench/coverage.py --peer venv/bin/python  # Torch-Pruning beside it, in an environment of its own

The kinds timm and torchvision need these libraries, the peer torch-pruning; so run them in an environment of their own,
in which both are built for the same torch. Where they are missing, their kinds are left out.

    python -m venv venv && venv/bin/pip install -e '.[onnx,timm,torchvision]' torch-pruning==1.6.1
    venv/bin/python tools/bench/coverage.py --only timm torchvision --peer venv/bin/python

Each model is tiny, with random weights, and is examined in a process of its own that ends with its time or memory. One
line of JSON is appended for each as it ends; what stops the command costs the models in work. A model of which nothing
is known counts as failed, and none is skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from apart import ROOT
from matrix.kind import Entry, Kind, Stage, kinds
from matrix.pages import coverage_page, pinned_page

RESULTS = ROOT / "docs" / "coverage.jsonl"
INSTALLED = re.compile(r"/[^\s\"'():]*/site-packages/")
"""Where packages lie on the machine that examines; nothing of that is written."""
PAGES = {"coverage.md": coverage_page, "pinned.md": pinned_page}


def main(words: Sequence[str] | None = None) -> None:
    given = _arguments(words)
    known = kinds()
    wanted = [entry for kind in known.values() for entry in kind.entries()]
    if given.only:
        asked = set(given.only)
        wanted = [entry for entry in wanted if {entry.kind, entry.group, entry.name} & asked]
        if unknown := asked - {word for entry in wanted for word in (entry.kind, entry.group, entry.name)}:
            sys.exit(f"--only {min(unknown)}: no kind, group or model of that name")
    found = read(given.results)
    left = [
        entry
        for entry in wanted
        if given.again or (record := found.get(_key(entry))) is None or (given.peer and "peer" not in record)
    ]
    if not given.read:
        for kind in known.values():
            if lost := [name for name in kind.needs if find_spec(name) is None]:
                print(f"{kind.name}: not examined, as {lost[0]} is not installed", file=sys.stderr)
                left = [entry for entry in left if entry.kind != kind.name]
        examine(left, known, given)
        found = read(given.results)
    for name, page in PAGES.items():
        (given.pages / name).write_text(page(known, found), encoding="utf-8")
        print(f"{given.pages / name}")


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=(), metavar="WORD", help="kinds, groups or models by name")
    parser.add_argument("--again", action="store_true", help="also those that have a result")
    parser.add_argument("--read", action="store_true", help="examine nothing, only write the pages")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="models at a time")
    parser.add_argument("--peer", help="the Python of an environment with torch-pruning")
    parser.add_argument("--seconds", type=float, default=120, help="that one process may take")
    parser.add_argument("--gigabytes", type=float, default=4, help="of memory that one process may take")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are appended")
    parser.add_argument("--pages", type=Path, default=ROOT / "docs", help="where the pages go")
    return parser.parse_args(words)


def read(file: Path) -> dict[str, dict[str, Any]]:
    """The newest result of each model. The last line may be half of one."""
    found: dict[str, dict[str, Any]] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        found[f"{record['kind']}/{record['name']}"] = record
    return found


def examine(entries: Iterable[Entry], known: dict[str, Kind], given: argparse.Namespace) -> None:
    """Each of the entries, `given.jobs` at a time, one line of results for each."""
    waiting: queue.SimpleQueue[Entry] = queue.SimpleQueue()
    for entry in entries:
        waiting.put(entry)
    total, commit, lock = waiting.qsize(), _commit(), threading.Lock()
    done = 0

    def work() -> None:
        nonlocal done
        nurseries: dict[Stage, Nursery] = {}
        try:
            while True:
                try:
                    entry = waiting.get_nowait()
                except queue.Empty:
                    return
                kind = known[entry.kind]
                if kind.stages[0] not in nurseries:
                    first = next(other for other in kind.entries() if other.name == kind.rehearsal)
                    _examined(replace(first, marks=()), kind, nurseries, given, rehearse=True)
                record = {**_examined(entry, kind, nurseries, given), "commit": commit}
                with lock, given.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                    done += 1
                    print(f"{done}/{total} {_line(record, kind)}", file=sys.stderr, flush=True)
        finally:
            for nursery in nurseries.values():
                nursery.close()

    with ThreadPoolExecutor(given.jobs) as pool:
        for worker in [pool.submit(work) for _ in range(given.jobs)]:
            worker.result()


def _examined(
    entry: Entry, kind: Kind, nurseries: dict[Stage, Nursery], given: argparse.Namespace, *, rehearse: bool = False
) -> dict[str, Any]:
    """What the stages of its kind say of one model."""
    stages = [*kind.stages]
    if given.peer and kind.peer is not None:
        stages.append(Stage(kind.peer.function, kind.peer.imports, given.peer))
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
        ends = []
        for stage in stages:
            nursery = nurseries.setdefault(stage, Nursery(stage))
            ends.append(nursery(entry, Path(folder), given.seconds, given.gigabytes, rehearse))
        found: dict[str, Any] = {}
        said = Path(folder) / "said.jsonl"
        text = said.read_text(encoding="utf-8").replace(f"{folder}/", "") if said.exists() else ""  # says nothing later
        text = INSTALLED.sub("", text)
        for line in text.splitlines():
            found |= {name: value for name, value in json.loads(line).items() if name != "why" or "why" not in found}
    if killed := [end for end in ends if end != "done"]:
        found.setdefault("why", killed[0])
    return {**entry.data(), **found, "seconds": round(time.monotonic() - start, 1)}


class Nursery:
    """A process that has imported what a stage needs; see `matrix.nursery`."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self._process = stage, None

    def __call__(self, entry: Entry, folder: Path, seconds: float, gigabytes: float, rehearse: bool) -> str:
        """Run the stage for one model; how that ended."""
        process = self._process = self._process or self._started()
        limits = {"seconds": seconds, "bytes": gigabytes * 1e9}
        job = {"entry": entry.data(), "folder": str(folder), "rehearse": rehearse, **limits}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            sys.exit(f"{self.stage.function} cannot be run: its process ended with {process.wait()}")
        return json.loads(answer)

    def _started(self) -> Any:
        here = str(Path(__file__).parent)
        path = os.pathsep.join(filter(None, [here, str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [
            self.stage.python or sys.executable,
            "-m",
            "matrix.nursery",
            self.stage.function,
            *self.stage.imports,
        ]
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()


def _key(entry: Entry) -> str:
    return f"{entry.kind}/{entry.name}"


def _line(record: dict[str, Any], kind: Kind) -> str:
    entry = Entry.read({name: record[name] for name in ("kind", "name", "group", "cls", "marks")})
    failed = next((name for name in kind.asked(entry) if not record.get(name)), None)
    said = "passes" if failed is None else f"not {failed}: {record.get(f'{failed}_why') or record.get('why', '')}"
    return f"{entry.name}: {said} ({record['seconds']} s)"


def _commit() -> str:
    """The commit that is examined, with a + where the package has been changed since."""
    name = _git("rev-parse", "--short", "HEAD")
    return name + ("+" if _git("status", "--porcelain", "compress") else "")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
