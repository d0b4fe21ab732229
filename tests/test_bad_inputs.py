"""Bad input of every kind: the command ends at once with a message that names the place and the cure, and no output.

Every case runs in a process of its own, a fork of one that has everything imported.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import spoken
from bad_inputs import config, data, output, quantised, recipes, shards
from bad_inputs.case import Case

from compress.cli.call import call

AREAS = {area.__name__.rpartition(".")[2]: area.CASES for area in (recipes, config, shards, quantised, data, output)}
SECONDS = 120
"""After so many a command hangs; idle, none takes two."""
RECIPES = {
    "m.yaml": "steps:\n  - prune: [channels]\n    by: magnitude\n    remove: 25%\n",
    "w.yaml": (
        "calibrate: {data: text.txt, samples: 2, length: 16, batch: 2}\n"
        "steps:\n  - prune: [channels]\n    by: wanda\n    remove: 25%\n"
    ),
}

Run = Callable[[Case, Path], tuple[int | None, str]]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which nothing is wrong."""
    folder = tmp_path_factory.mktemp("good")
    spoken.save("llama", folder / "base")
    for name, text in RECIPES.items():
        (folder / name).write_text(text)
    (folder / "text.txt").write_text("Every model here is small, and every sentence is plain.\n\n" * 40)
    return folder


@pytest.fixture(scope="module")
def run(good: Path, harvested: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs a case's command; returns its exit code (None: it hung) and what it said on stderr."""
    warm = tmp_path_factory.mktemp("warm") / "run"
    shutil.copytree(good, warm)
    tests = Path(__file__).parent
    env = {
        **os.environ,
        "COMPRESS_CACHE": str(harvested),
        "OMP_NUM_THREADS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONPATH": _path(tests),
    }
    server = subprocess.Popen(
        [sys.executable, str(tests / "bad_inputs/children.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env,
    )  # fmt: skip
    assert server.stdin and server.stdout
    first = {"arguments": ["w.yaml", "base", "warm", "--no-evaluate", "-q"], "folder": str(warm)}
    print(json.dumps(first), file=server.stdin, flush=True)
    assert server.stdout.readline() == "ready\n"

    def run(case: Case, folder: Path) -> tuple[int | None, str]:
        said = folder.parent / f"{folder.name}.stderr"
        asked = {
            "arguments": shlex.split(case.command),
            "folder": str(folder),
            "env": dict(case.env),
            "memory": case.memory,
            "seconds": SECONDS,
            "stdout": os.devnull,
            "stderr": str(said),
        }
        assert server.stdin and server.stdout
        print(json.dumps(asked), file=server.stdin, flush=True)
        return json.loads(server.stdout.readline())["code"], said.read_text(errors="replace")

    with server:
        yield run
        server.stdin.close()


def _path(tests: Path) -> str:
    return os.pathsep.join([str(tests.parent), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("can't start new thread"), OSError(errno.ENOMEM, "Cannot allocate memory")]
)
def test_memory_that_runs_out_is_said_in_words(error, monkeypatch, capsys) -> None:
    def fail(*_):
        raise error

    monkeypatch.setattr("compress.recipe.read.read_recipe", fail)
    assert call(["m.yaml", "base", "out"]) == 2
    assert "memory ran out" in (said := capsys.readouterr().err) and "ulimit -v" in said


def test_what_is_no_lack_of_memory_stays_a_bug(monkeypatch) -> None:
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("compress.recipe.read.read_recipe", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        call(["m.yaml", "base", "out"])


def test_there_are_many_and_each_has_its_name() -> None:
    names = [f"{area}: {case.name}" for area, cases in AREAS.items() for case in cases]
    assert len(set(names)) == len(names) >= 250
    assert all(case.says for cases in AREAS.values() for case in cases)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{area}: {case.name}", marks=[] if number % 20 == 0 else pytest.mark.slow)
        for area, cases in AREAS.items()
        for number, case in enumerate(cases)
    ],
)
def test_bad_input(case: Case, good: Path, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(good, folder)
    case.prepare(folder)
    before = _listed(folder)
    code, said = run(case, folder)
    assert code is not None, f"hung\n{said[-2000:]}"
    assert "Traceback" not in said, said[-4000:]
    assert code == case.code, said[-2000:]
    words = " ".join(said[:1_000_000].split())
    assert [text for text in case.says if text not in words] == [], said[-2000:]
    if code:
        assert "error: " in said and len(said.rpartition("error: ")[2]) < 3000
        assert _listed(folder) == before


def _listed(folder: Path) -> dict[str, int]:
    """Every path in the folder, hidden ones too, and when the files were changed."""
    paths = sorted(folder.rglob("*"))
    return {str(path): 0 if path.is_dir() else path.lstat().st_mtime_ns for path in paths}
