"""The README: short, its links lead somewhere, its recipe is the one that ships, and every command of it runs."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import spoken

from compress import cli

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    compress (.*?)(?:\s+#.*)?$", TEXT, re.MULTILINE)
LONGEST = 9000  # of which the table of all recipes and peers is a sixth


@pytest.fixture(scope="module")
def place(tmp_path_factory, harvested):
    """A working directory with a small model where the README's stands, and a cache that has the text of `docs`."""
    there = tmp_path_factory.mktemp("readme")
    shutil.copytree(harvested, there / "cache")
    spoken.save("llama", there / "work" / "path" / "or" / "hub-id", intermediate_size=64)
    return there


def test_it_is_short():
    assert len(TEXT.encode()) <= LONGEST


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_its_recipe_is_the_one_that_ships():
    [shown] = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert COMMANDS[0].startswith("auto ")  # a goal first, then a recipe
    assert shown.split() == (ROOT / "recipes" / f"{COMMANDS[1].split()[0]}.yaml").read_text(encoding="utf-8").split()


@pytest.mark.slow
def test_its_commands_run(place, monkeypatch, capsys):
    monkeypatch.setenv("COMPRESS_CACHE", str(place / "cache"))
    monkeypatch.chdir(place / "work")
    monkeypatch.setattr("compress.evaluate.before_after.SAMPLES", 8)  # other tests look at what is measured
    assert len(COMMANDS) > 5
    for number, command in enumerate(COMMANDS):
        if command.endswith("out/") or " out/ " in command:  # each of them stands for itself
            shutil.rmtree("out", ignore_errors=True)
        assert cli.call(shlex.split(command)) == 0, f"{number}: compress {command}\n{capsys.readouterr().err}"
