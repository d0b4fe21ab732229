"""A command that is interrupted says what stands, whichever signal it was."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo

from compress import cli, pipeline

RECIPE = "calibrate: {data: random, samples: 4, length: 16}\nsteps:\n- {prune: channels, by: magnitude, remove: 25%}\n"
SIGNALS = {signal.SIGINT: ("interrupted; ", 130)}
SIGNALS |= {number: (f"interrupted ({number.name}); ", 128 + number) for number in (signal.SIGTERM, signal.SIGHUP)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model `in` and three recipes, which is the working directory."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in "abc":
        Path(f"{name}.yaml").write_text(RECIPE)
    zoo.save("llama", Path("in"), num_hidden_layers=1)
    return tmp_path / "work"


def raising(number: signal.Signals, after: int = 0) -> Callable[..., object]:
    """Something that gets the signal at its call after the first `after`, and does nothing else."""
    calls = []

    def raise_it(*given: object, **more: object) -> object:
        calls.append(given)
        if len(calls) > after:
            signal.raise_signal(number)
        return None

    return raise_it


def before(function: Callable[..., object], first: Callable[..., object]) -> Callable[..., object]:
    return lambda *given, **more: (first(), function(*given, **more))[1]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", ["a.yaml in out", "plan a.yaml in", "compare a.yaml in -o out --no-evaluate"])
def test_nothing_was_written(number, command, place, monkeypatch, capsys):
    words, code = SIGNALS[number]
    monkeypatch.setattr(pipeline, "execute", raising(number))
    assert cli.call(command.split()) == code
    assert f"error: {words}nothing was written. The same command goes on" in capsys.readouterr().err
    assert sorted(path.name for path in place.iterdir()) == ["a.yaml", "b.yaml", "c.yaml", "in"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_comparison_names_its_finished_results(number, place, monkeypatch, capsys):
    words, code = SIGNALS[number]
    monkeypatch.setattr(pipeline, "execute", before(pipeline.execute, raising(number, after=2)))
    command = ["compare", "a.yaml", "b.yaml", "c.yaml", "in", "-o", "out", "--no-evaluate"]
    assert cli.call(command) == code
    assert f"error: {words}finished: a, b in {place / 'out'}; no more was written" in capsys.readouterr().err
    assert sorted(path.name for path in Path("out").iterdir()) == ["a", "b"]


def test_a_result_that_has_its_name_stands(place, monkeypatch, capsys):
    """The signal comes while the names change, and is heard when that is done."""
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda old, new: (signal.raise_signal(signal.SIGTERM), rename(old, new))[1])
    assert cli.call(["a.yaml", "in", "out", "--no-evaluate"]) == 143
    assert f"(SIGTERM); finished: out in {place}; no more" in capsys.readouterr().err
    assert Path("out/report.json").exists()


def test_an_output_that_failed_to_replace_is_not_called_finished(place, monkeypatch, capsys):
    assert cli.call(["a.yaml", "in", "out", "--no-evaluate"]) == 0
    monkeypatch.setattr(pipeline, "execute", raising(signal.SIGINT))
    assert cli.call(["a.yaml", "in", "out", "--no-evaluate", "--force"]) == 130
    assert "interrupted; nothing was written" in capsys.readouterr().err, "that of the command before does not count"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_from_outside(number, place, monkeypatch):
    """To a forked child, which is told to end while it prunes."""
    words, code = SIGNALS[number]
    reading, writing = os.pipe()
    child = os.fork()
    if not child:

        def prune(*given: object) -> None:
            os.write(2, b"pruning\n")
            for _ in range(15_000):
                time.sleep(0.02)

        try:
            torch.set_num_threads(1)
            os.dup2(writing, 2)
            monkeypatch.setattr("sys.stderr", os.fdopen(2, "w", buffering=1))
            monkeypatch.setattr(pipeline, "execute", prune)
            os._exit(cli.call(["a.yaml", "in", "out"]))
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as said:
        assert "pruning\n" in iter(said.readline, "")
        os.kill(child, number)
        assert f"error: {words}nothing was written." in said.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
    assert not [path for path in place.iterdir() if "out" in path.name]


def test_what_is_ignored_stays_ignored(place, capsys):
    """As under nohup."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "execute", before(pipeline.execute, raising(signal.SIGHUP)))
            assert cli.call(["a.yaml", "in", "out", "--no-evaluate"]) == 0
    finally:
        signal.signal(signal.SIGHUP, old)
