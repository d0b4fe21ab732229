"""Recipes that ship go by name, in a source tree and out of a wheel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
import zoo

import compress
from compress import cli
from compress.comparison.candidates import candidates
from compress.errors import InputError
from compress.files import shipped
from compress.recipe.read import read_recipe

ROOT = Path(__file__).parent.parent


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A working directory where no recipe lies."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_name_is_a_recipe_and_every_recipe_has_one(away):
    assert {"flap-20", "contrasts/structured"} <= set(shipped.names())
    assert len(shipped.names()) == len(list((ROOT / "recipes").rglob("*.yaml")))
    for name in shipped.names():
        assert read_recipe(name).about


def test_a_file_wins_over_a_name_and_a_folder_does_not(away):
    (away / "flap-20").mkdir()  # an output folder named after its recipe
    assert "FLAP" in read_recipe("flap-20").about
    (away / "flap-20").rmdir()
    (away / "flap-20").write_text("about: mine\nsteps: [{prune: channels, by: magnitude, remove: 5%}]\n")
    assert read_recipe("flap-20").about == "mine"


def test_overrides_and_python_take_names(away):
    assert read_recipe("magnitude-20", ["seed=7"]).seed == 7
    zoo.save("llama", away / "in")
    report = compress.run("magnitude-20", "in", "out", compress.Options(evaluate=False))
    assert report is not None and (away / "out" / "config.json").exists()


def test_compare_takes_names_of_recipes_and_of_folders(away):
    found = [one.name for one in candidates([Path("magnitude-20"), Path("contrasts")])]
    assert found[0] == "magnitude-20" and {"structured", "unstructured"} <= set(found)
    (away / "contrasts").mkdir()
    with pytest.raises(InputError, match="no recipe"):
        candidates([Path("contrasts")])


@pytest.mark.parametrize(
    ("name", "near"),
    [("flap-21", "flap-20"), ("structured", "contrasts/structured"), ("recipes/magnitude-20.yaml", "magnitude-20")],
)
def test_an_unknown_name_has_a_nearest_one_and_the_list(name, near, away):
    with pytest.raises(
        InputError, match=f"no such recipe; did you mean '{near}'.*one of: activation-20, .*contrasts/…"
    ):
        read_recipe(name)


def test_ls_recipes_can_be_copied(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.call(["ls", "recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if line.strip() and line[1] != " "} == set(shipped.names())


def test_a_wheel_carries_the_recipes(tmp_path):
    source = tmp_path / "source"
    copytree(ROOT, source, ignore=ignore_patterns(".*", "tests", "docs", "build", "calibration", "*.egg-info"))
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"compress_models-{compress.__version__}-")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    code = "import compress; from compress.files import shipped; print(compress.__file__, *shipped.names())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    where, *names = done.stdout.split()
    assert where.startswith(str(tmp_path / "site"))
    assert names == shipped.names()
