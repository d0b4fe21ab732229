"""A process killed between any two calls to the file system leaves the old output or the new, and never half of one.

Children are forked and kill themselves before the n-th call, as the interpreter's audit events count them.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo

from compress import cli
from compress.checkpoint import folder as folders
from compress.checkpoint.exchange import exchange
from compress.checkpoint.folder import new_folder
from compress.checkpoint.leftovers import put_right
from compress.errors import InputError

CALLS = {"os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.scandir", "os.listdir", "open", "shutil.rmtree"}
CALLS |= {"ctypes.dlopen", "ctypes.dlsym"}  # just before two names are exchanged
CHANGES = CALLS - {"os.scandir", "os.listdir", "open", "ctypes.dlopen", "ctypes.dlsym"}
RECIPE = "calibrate: {{data: random, samples: 4, length: 16}}\nsteps:\n- {{prune: channels, by: {}, remove: {}}}\n"
SAID = "a run was killed here"


def killed(action: Callable[[], object], number: int, calls: set[str]) -> bool:
    """Whether a child that does `action` was killed before its call `number`; False when it got to its end."""
    child = os.fork()
    if not child:
        left = [number]

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event in calls:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            torch.set_num_threads(1)  # a pool of threads does not survive the fork
            sys.addaudithook(hook)
            action()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def content(folder: Path) -> dict[str, str] | None:
    if not folder.exists():
        return None
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*")) if file.is_file()}


def write(target: Path, text: str, force: bool) -> None:
    with new_folder(target, force=force) as folder:
        (folder / "weights").write_text(text)
        (folder / "code").mkdir()
        (folder / "code" / "more").write_text(text)
        (folder / "report").write_text(text)


def written(tmp_path: Path, text: str) -> dict[str, str] | None:
    write(tmp_path / "written" / text, text, force=False)
    return content(tmp_path / "written" / text)


@pytest.mark.slow
@pytest.mark.parametrize("exchanging", [True, False], ids=["exchange", "renames"])
@pytest.mark.parametrize("situation", ["new", "overwritten", pytest.param("compared", marks=pytest.mark.slow)])
def test_any_kill_leaves_the_old_or_the_new(
    situation: str,
    exchanging: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not exchanging:
        monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    old, new, later = (written(tmp_path, text) for text in ("old", "new", "later"))
    force, names = situation != "new", ("a", "b") if situation == "compared" else ("out",)
    seen = set()
    for number in itertools.count(1, 5 if situation == "compared" else 1):
        place = tmp_path / str(number) / "place"
        place.mkdir(parents=True)
        theirs = {"thesis", f".{names[0]}.partial-notes", f".{names[0]}.partial-{socket.gethostname()}-1"}
        for name in theirs:
            (place / name).mkdir()
        for name in names if force else ():
            write(place / name, "old", force=False)

        def action(place: Path = place) -> None:
            for name in names:
                write(place / name, "new", force=force)

        if not killed(action, number, CALLS):
            break
        hidden = {path.name for path in place.iterdir()} - theirs - set(names)
        capsys.readouterr()
        for name in names:
            found = content(place / name)
            if force and not exchanging and found is None:  # the one moment: set aside, and put right at the next start
                seen.add("aside")
                with pytest.raises(InputError, match="exists; choose another folder"):
                    write(place / name, "later", force=False)
                found = content(place / name)
            assert found in ((old, new) if force else (None, new))
            seen.add({"old": "old", "new": "new"}[found["weights"]] if found else "absent")
            write(place / name, "later", force=found is not None)
            assert content(place / name) == later
        assert {path.name for path in place.iterdir()} == theirs | set(names)
        assert (SAID in capsys.readouterr().err) == bool(hidden)
    assert number > (60 if situation == "compared" else 15)
    assert seen == ({"old", "new"} if force else {"absent", "new"}) | ({"aside"} if force and not exchanging else set())


def test_what_was_set_aside_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "out", "old", force=False)
    before = content(tmp_path / "out")
    dead = f".out.partial-{socket.gethostname()}-{2**22 + 1}"
    (tmp_path / "out").rename(tmp_path / f"{dead}-old")
    (tmp_path / dead).mkdir()
    (tmp_path / dead / "weights").write_text("half")
    put_right(tmp_path / "out")
    assert content(tmp_path / "out") == before and [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "is again what it was before" in capsys.readouterr().err


def test_two_names_are_exchanged(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("the system cannot")
    assert (tmp_path / "one" / "other").exists() and (tmp_path / "other" / "one").exists()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "one", tmp_path / "nowhere")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model `in` and two recipes, which is the working directory; caches are warm."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("compress.checkpoint.digest.SETTLED", 0.0)  # or a slow machine remembers a digest, half way on
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("a.yaml").write_text(RECIPE.format("wanda", "25%"))
    Path("b.yaml").write_text(RECIPE.format("random", "25%"))
    zoo.save("llama", Path("in"), num_hidden_layers=1)
    return tmp_path / "work"


def whole(folder: Path) -> bytes | None:
    """The weights of an output with all its papers, or None where there is none."""
    if not folder.exists():
        return None
    assert json.loads((folder / "report.json").read_text())["recipe"] and (folder / "README.md").exists()
    return (folder / "model.safetensors").read_bytes()


def changes(action: Callable[[], object]) -> int:
    """How many calls that change names a child makes."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        count = [0]
        try:
            sys.addaudithook(lambda event, arguments: count.__setitem__(0, count[0] + (event in CHANGES)))
            torch.set_num_threads(1)
            action()
            os.write(writing, str(count[0]).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as said:
        return int(said.read())


@pytest.mark.slow
@pytest.mark.parametrize("situation", ["new", "overwritten", "compared"])
def test_a_run_killed_anywhere(situation: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", "a.yaml", "b.yaml", "in", "-o", "out"] if situation == "compared" else ["a.yaml", "in", "out"]
    command += ["--no-evaluate", *(["--force"] if situation != "new" else [])]
    results = [Path("out/a"), Path("out/b")] if situation == "compared" else [Path("out")]
    assert cli.call([*command, "--set", "steps.0.remove=50%"]) == 0
    old = [whole(result) for result in results] if situation != "new" else [None]
    Path("out").rename("kept")
    assert cli.call(command) == 0
    new = [whole(result) for result in results]

    def fresh() -> None:
        shutil.rmtree("out")
        if situation != "new":
            shutil.copytree("kept", "out")

    fresh()
    total = changes(lambda: cli.call(command))
    for number in sorted({round(1 + i * (total - 1) / 2) for i in range(3)}):
        shutil.rmtree("out", ignore_errors=True)
        if situation != "new":
            shutil.copytree("kept", "out")
        assert killed(lambda: cli.call(command), number, CHANGES)
        for result, before, after in zip(results, old, new, strict=True):
            assert whole(result) in (before, after)
        for page in Path("out").glob("compare.json"):
            json.loads(page.read_text())
        again = ["--force"] if Path("out").exists() and situation == "new" else []
        assert cli.call([*command, *again]) == 0
        assert [whole(result) for result in results] == new
        assert sorted(path.name for path in place.iterdir()) == ["a.yaml", "b.yaml", "in", "kept", "out"]
        assert not [path for path in Path("out").glob(".*") if "partial" in path.name]
