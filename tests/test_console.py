"""Progress goes to stderr, the result to stdout."""

import io
import json
import re
import threading
import time

import pytest
from rich.console import Console

from compress import console
from compress.execution.stages import Stages

HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"
"""What a display writes of the cursor when it begins and ends."""


def test_messages_go_to_stderr_and_results_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("reading [model]" + " long" * 40)
    console.detail("for -v only")
    console.result("a table", {"a": 1})
    out, err = capsys.readouterr()
    assert out == "a table\n"
    assert err == "reading [model]" + " long" * 40 + "\n"  # neither markup nor wrapped


def test_switches(capsys: pytest.CaptureFixture[str]) -> None:
    console.switch(quiet=True, json=True)
    console.say("unheard")
    console.warn("heard")
    assert list(console.track([1, 2], "unheard")) == [1, 2]
    console.result("a table", {"model": "ä"})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"model": "ä"} and err == "warning: heard\n"
    console.switch(verbose=True)
    console.detail("heard too")
    assert capsys.readouterr().err == "heard too\n"


def test_progress_without_a_terminal_is_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "EVERY", 0.0)
    assert list(console.track(range(2), "blocks")) == [0, 1]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("blocks: 1/2, ") and lines[0].endswith(" left")
    assert re.fullmatch(r"blocks: done in \d+ s", lines[-1])


def test_bars_nest_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=screen, force_terminal=True, _environ={"TERM": "xterm"}))
    with pytest.raises(KeyboardInterrupt), console.task("outer", total=2) as advance:
        for _ in console.track([3], "inner"):
            while "inner" not in screen.getvalue():  # a display draws itself several times a second
                time.sleep(0.01)
        assert screen.getvalue().count(HIDDEN) == 1  # one display for both
        advance()
        raise KeyboardInterrupt
    assert "outer" in screen.getvalue()
    console.complain("interrupted")
    assert "error: interrupted" in screen.getvalue()
    for _ in console.track(range(1), "again"):
        while "again" not in screen.getvalue():
            time.sleep(0.01)
    assert screen.getvalue().count(HIDDEN) == screen.getvalue().count(SHOWN) == 2  # none is left


def test_units() -> None:
    assert [console.human_bytes(n) for n in (7, 1500, 6.1e9, 2e13)] == ["7 B", "1.5 kB", "6.1 GB", "20.0 TB"]
    assert [console.human_seconds(n) for n in (8.2, 200, 7500)] == ["8 s", "3 min 20 s", "2 h 5 min"]


def test_what_is_silent_gets_a_sign_of_life(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "SILENCE", 0.01)
    said = ""
    with console.task("outer", total=3) as advance:
        advance(0)
        with console.working("exporting"):
            while said.count("\n") < 2:
                said += capsys.readouterr().err
    assert all(re.fullmatch(r"exporting: \d+ s so far", line) for line in said.splitlines())
    assert "progress" not in [thread.name for thread in threading.enumerate()]
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"outer: done in \d+ s", last)  # and `working` says nothing at its end


@pytest.mark.parametrize("switch", ["quiet", "json"])
def test_no_progress_when_quiet_or_json(switch: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.switch(**{switch: True})
    stages = Stages(["read"], [["cut"]], ["report"])
    with stages("read"), console.task("reading", 2), console.working("waiting"):
        assert "progress" not in [thread.name for thread in threading.enumerate()]
    assert capsys.readouterr().err == ""


def test_stages_are_listed_and_announced_once_each(capsys: pytest.CaptureFixture[str]) -> None:
    stages = Stages(["read"], [["calibrate", "decide", "cut"], ["decide", "cut"]], ["report"])
    for name in ("read", "read", "calibrate", "decide", "decide", "cut", "calibrate", "decide", "cut", "report"):
        with stages(name):
            pass
    listed, *announced = capsys.readouterr().err.splitlines()
    assert listed == "stages: read · step 1 (calibrate · decide · cut) · step 2 (decide · cut) · report"
    assert announced == [
        "[1/7] reading the model …",
        "[2/7] step 1: calibrating …",
        "[3/7] step 1: deciding …",
        "[4/7] step 1: cutting …",
        "[5/7] step 2: deciding …",
        "[6/7] step 2: cutting …",
        "[7/7] writing the report …",
    ]
