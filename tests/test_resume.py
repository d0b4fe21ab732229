"""An interrupted run goes on behind its last finished step, and gives what it would have given undisturbed."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
import zoo

from compress import cli, pipeline
from compress.errors import InputError
from compress.pipeline import Options, run

RECIPE = """calibrate: {data: random, samples: 4, length: 16}
steps:
- {prune: channels, by: wanda, remove: 25%}
- {prune: [heads, channels], by: fluctuation, remove: 25%, repair: bias}
"""


WHOLE = Path("undisturbed/out")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory: a two-step recipe `r.yaml`, a model `in`, and `WHOLE`, what an undisturbed run gives."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("r.yaml").write_text(RECIPE)
    zoo.save("llama", Path("in"))
    assert cli.call(["r.yaml", "in", str(WHOLE), "--no-evaluate"]) == 0
    return tmp_path / "work"


@pytest.fixture
def executed(monkeypatch):
    """How often a step is executed, and a way to end the second one before it begins: by what `stop` does."""
    real, seen = pipeline.execute, {"count": 0, "stop": None}

    def execute(work, *rest):
        seen["count"] += 1
        if seen["stop"] is not None and len(work.steps) == 1:
            seen["stop"]()
        return real(work, *rest)

    monkeypatch.setattr(pipeline, "execute", execute)
    return seen


def interrupt():
    raise KeyboardInterrupt


def content(folder):
    """All files, but for the times in the reports and the folder's own path."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        found[file.relative_to(folder).as_posix()] = file.read_bytes().replace(str(WHOLE).encode(), b"out")
    found["report.html"] = re.sub(rb"[\d.]+ (m?s|min [\d.]+ s)</dd>", b"", found["report.html"])
    report = json.loads(found.pop("report.json"))
    del report["seconds"]
    return {**found, "report.json": report}


def kept(place):
    return [path.name for path in place.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_goes_on_behind_the_finished_step(place, executed, capsys):
    executed["stop"] = interrupt
    assert cli.call(["r.yaml", "in", "out", "--no-evaluate"]) == 130
    said = capsys.readouterr().err
    assert "no output was written, but step 1 of 2 is kept: the same command with --resume" in said
    assert len(kept(place)) == 1 and not Path("out").exists()
    executed.update(stop=None, count=0)
    assert cli.call(["r.yaml", "in", "out", "--no-evaluate", "--resume"]) == 0
    said = capsys.readouterr().err
    assert "resuming behind step 1 of 2" in said and "step 2: calibrating" in said and "step 1: calib" not in said
    assert executed["count"] == 1
    assert content(Path("out")) == content(WHOLE)
    assert kept(place) == []


@pytest.mark.slow
def test_goes_on_after_a_kill_and_after_an_interrupted_resumption(place, executed):
    executed["stop"] = lambda: os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if not child:
        try:
            run("r.yaml", "in", "out", Options(evaluate=False))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    executed["stop"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        run("r.yaml", "in", "out", Options(evaluate=False, resume=True))
    executed.update(stop=None, count=0)
    run("r.yaml", "in", "out", Options(evaluate=False, resume=True))
    assert executed["count"] == 1
    assert content(Path("out")) == content(WHOLE)


@pytest.mark.slow
def test_without_the_flag_what_was_kept_is_removed(place, executed, capsys):
    executed["stop"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        run("r.yaml", "in", "out", Options(evaluate=False))
    executed.update(stop=None, count=0)
    run("r.yaml", "in", "out", Options(evaluate=False))
    assert "an interrupted run had finished steps here: removed them" in capsys.readouterr().err
    assert executed["count"] == 2 and kept(place) == []


@pytest.mark.slow
@pytest.mark.parametrize("other", ["recipe", "model"])
def test_steps_of_another_run_are_not_gone_on_from(other, place, executed):
    executed["stop"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        run("r.yaml", "in", "out", Options(evaluate=False))
    executed["stop"] = None
    if other == "recipe":
        Path("r.yaml").write_text(RECIPE + "seed: 1\n")
    else:
        zoo.save("llama", Path("in"), intermediate_size=40)
    with pytest.raises(InputError, match=r"--resume: .* another recipe, model"):
        run("r.yaml", "in", "out", Options(evaluate=False, resume=True))
    assert len(kept(place)) == 1  # hours of work may lie there


def test_nothing_to_resume(place, capsys):
    run("r.yaml", "in", "out", Options(evaluate=False, resume=True))
    assert "nothing to resume" in capsys.readouterr().err
    assert content(Path("out")) == content(WHOLE)


@pytest.mark.slow
def test_a_mistake_keeps_nothing(place, executed):
    def fail():
        raise InputError("no")

    executed["stop"] = fail
    with pytest.raises(InputError, match="no"):
        run("r.yaml", "in", "out", Options(evaluate=False))
    assert kept(place) == []
