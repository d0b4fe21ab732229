"""Where an output may go: never in an input's place, and --force replaces only what compress wrote."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import zoo
from safetensors.torch import load_file, save_file

from compress import cli
from compress.checkpoint import locate
from compress.checkpoint.folder import new_folder
from compress.checkpoint.ours import MARK
from compress.errors import InputError
from compress.export import onnx as exporting
from compress.onnx import Exported
from compress.onnx.parity import Parity

RECIPE = "calibrate: {data: random, samples: 4, length: 16}\nsteps:\n- {prune: channels, by: magnitude, remove: 25%}\n"
DELTA = "steps:\n- {prune: delta, base: home/base, by: magnitude, remove: 50%}\n"
PRUNE, APART = ("r.yaml", "home/in"), ("d.yaml", "home/in")
APPLY, FOLD = ("apply", "out/plan.json", "home/in"), ("apply-delta", "home/base", "home/delta")
COMPARE, EXPORT = ("compare", "r.yaml", "home/in", "-o"), ("export", "home/in", "-o")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`home` with the models `in` and `base`, their delta and a thesis; `out`, `folded` and `compared`, outputs."""
    there = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESS_CACHE", str(there / "cache"))
        patch.chdir(there)
        Path("r.yaml").write_text(RECIPE)
        Path("d.yaml").write_text(DELTA)
        for name in ("home/in", "home/base"):
            zoo.save("llama", Path(name))
        state = load_file("home/in/model.safetensors")
        state["model.norm.weight"] += 1
        state["model.layers.0.mlp.up_proj.weight"] += torch.ones(1)
        save_file(state, "home/in/model.safetensors", {"format": "pt"})
        Path("home/thesis.txt").write_text("years of work")
        quick = ("--no-evaluate", "-q")
        assert cli.call([*PRUNE, "out", *quick]) == 0
        assert cli.call([*APART, "home/delta", *quick]) == 0
        assert cli.call([*FOLD, "folded", "-q"]) == 0
        assert cli.call([*COMPARE, "compared", *quick]) == 0
    return there


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of all that, as the working directory."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "work" / "cache"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def quick_graph(monkeypatch):
    """An export that takes no time: what is written does not matter here, but where."""

    def export(model, folder, settings):
        (folder / "model.onnx").write_text("a graph")
        return Exported({"model.onnx": 7}, 20, {}, [], [Parity(1, 1, 0.0, 1.0)])

    monkeypatch.setattr(exporting, "export_model", export)


def content(folder):
    """Every path below, with a file's bytes or a link's aim."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else (path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def refused(arguments, words, place, capsys):
    """Exit code 2, no traceback, nothing changed; `words` are in the message."""
    before = content(place)
    assert cli.call([*arguments]) == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said.replace(f"{place}/", "")
    assert len(said) < 1000 and "Traceback" not in said
    assert content(place) == before


@pytest.mark.parametrize("more", [(), ("--force",)], ids=["", "force"])
@pytest.mark.parametrize(
    ("command", "out", "words"),
    [
        (PRUNE, "home/in", "home/in: is home/in, which is read"),
        (PRUNE, "home/../home/in/.", "home/in: is home/in"),
        (PRUNE, "home", "home: holds home/in"),
        (PRUNE, "home/in/out", "home/in/out: lies in home/in"),
        (PRUNE, "home/in/not/yet/../out", "lies in home/in"),
        (PRUNE, "link/in", "home/in: is home/in"),
        (PRUNE, "link/in/out", "lies in home/in"),
        ((*PRUNE, "--dry-run"), "home/in", "is home/in"),
        (("r.yaml", "link/in"), "home", "holds link/in"),
        (("r.yaml", "linked"), "out", "out: holds files of linked"),
        (APPLY, "home/in", "is home/in"),
        (FOLD, "home/base", "is home/base"),
        (FOLD, "home/delta", "home/delta, which is read"),
        (FOLD, "home/delta/out", "lies in"),
        (APART, "home/base", "is home/base"),
        ((*APART, "--dry-run"), "home/base/x", "lies in home/base"),
        (COMPARE, "home/in", "is home/in"),
        (COMPARE, "home/in/compared", "lies in home/in"),
        (COMPARE, "home", "holds home/in"),
        (EXPORT, "home/in", "is home/in"),
        (EXPORT, "home/in/graph", "lies in home/in"),
    ],
)
def test_an_input_is_never_in_danger(command, out, words, more, place, capsys):
    Path("link").symlink_to("home")
    Path("linked").mkdir()
    for file in Path("out").glob("*"):
        (Path("linked") / file.name).symlink_to(file.absolute())
    refused(
        [*command, out, *(() if "--dry-run" in command and more else more)], [words, "choose another"], place, capsys
    )


def test_a_hub_model_counts_once_it_is_opened(place, monkeypatch, capsys):
    monkeypatch.setattr(locate, "fetch", lambda name, *rest, **more: (place / "home/in").absolute())
    refused(["r.yaml", "owner/name", "home/in/out", "--no-evaluate"], ["lies in"], place, capsys)
    refused(["export", "owner/name", "-o", "home/in/graph"], ["lies in"], place, capsys)
    refused(["apply-delta", "owner/name", "home/delta", "home/in/out"], ["lies in"], place, capsys)
    refused(["d.yaml", "home/base", "home/in/out", "--set", "steps.0.base=owner/name"], ["lies in"], place, capsys)


@pytest.mark.parametrize("command", [PRUNE, (*PRUNE, "--dry-run"), APPLY, FOLD, APART, COMPARE, EXPORT], ids=" ".join)
def test_force_replaces_nothing_of_others(command, place, capsys):
    Path("theirs").mkdir()
    Path("theirs/thesis.txt").write_text("years of work")
    Path("theirs/report.json").write_text('{"model": "a car", "recipe": 1, "before": 2, "after": 3, "environment": {}}')
    refused([*command, "theirs", "--force"], ["theirs: exists and was not written by compress"], place, capsys)
    refused([*command, "theirs"], ["theirs: exists; choose another folder, or pass --force"], place, capsys)


def test_a_comparison_replaces_results_of_ours_only(place, capsys):
    shutil.rmtree("compared/r")
    Path("compared/r").mkdir()
    Path("compared/r/thesis.txt").write_text("years of work")
    refused([*COMPARE, "compared", "--force"], ["compared/r: exists and was not written by compress"], place, capsys)
    shutil.rmtree("compared")
    shutil.copytree("out", "compared/other")  # what an interrupted comparison leaves
    assert cli.call([*COMPARE, "compared", "--force", "--no-evaluate"]) == 0
    assert Path("compared/other/report.json").exists() and Path("compared/compare.json").exists()


@pytest.mark.parametrize(
    ("command", "name", "marked"),
    [
        (PRUNE, "out", True),
        (PRUNE, "out", False),
        (FOLD, "folded", True),
        (APART, "delta", True),
        (APART, "delta", False),
        (COMPARE, "compared", True),
        (COMPARE, "compared", False),
    ],
)
def test_force_replaces_outputs_of_every_kind(command, name, marked, place):
    """Those without the mark are of an earlier version, or fetched from the hub."""
    if name == "delta":
        Path("home/delta").rename("delta")
    if not marked:
        for file in Path(name).rglob(MARK):
            file.unlink()
    Path(name, "old.txt").write_text("old")
    quick = () if command == FOLD else ("--no-evaluate",)
    assert cli.call([*command, name, "--force", *quick]) == 0
    assert Path(name, "old.txt").exists() == (name == "compared")
    assert Path(name, MARK).exists()


def test_an_empty_folder_needs_force_only(place):
    Path("empty").mkdir()
    assert cli.call([*PRUNE, "empty", "--no-evaluate"]) == 2
    assert cli.call([*PRUNE, "empty", "--no-evaluate", "--force"]) == 0
    Path("room").mkdir()
    assert cli.call([*COMPARE, "room", "--no-evaluate"]) == 0


def test_the_graph_inside_a_model(place, quick_graph, capsys):
    Path("home/in/onnx").mkdir()
    Path("home/in/onnx/model.onnx").write_text("its author's")
    refused(["export", "home/in", "--force"], ["home/in/onnx: exists and was not written by compress"], place, capsys)
    shutil.rmtree("home/in/onnx")
    Path("home/in/onnx").symlink_to(place / "out")
    refused(["export", "home/in", "--force"], ["home/in/onnx: is a symbolic link to"], place, capsys)
    Path("home/in/onnx").unlink()
    for arguments in ([], ["--force"], ["-o", "home/base/../in/onnx", "--force"]):
        assert cli.call(["export", "home/in", *arguments]) == 0
    assert Path("home/in/model.safetensors").exists() and Path("home/in/onnx/model.onnx").exists()


def test_the_graph_that_a_recipe_exported_may_be_made_anew(place, quick_graph):
    Path("e.yaml").write_text(f"{RECIPE}export: onnx\n")
    assert cli.call(["e.yaml", "home/in", "new", "--no-evaluate"]) == 0
    assert cli.call(["export", "new", "--force"]) == 0


@pytest.mark.parametrize("more", [(), ("--force",), ("--dry-run",)], ids=["", "force", "dry-run"])
@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("dangling", "dangling: is a symbolic link to nowhere; name that folder itself"),
        ("linked", "linked: is a symbolic link to out; name that folder itself"),
        ("n" * 300, "a name of 300 bytes, the file system takes 255; shorten it"),
        (f"{'n' * 300}/out", "a name of 300 bytes"),
        (f"not/yet/{'n' * 300}", "a name of 300 bytes"),
        ("n" * 240, "too long by"),
        ("/".join(["deep"] * 1000), "too long by"),
        ("/proc/x/y", "cannot be written, /proc takes no new folder"),
        ("/sys/x", "cannot be written, /sys"),
        ("nu\0ll", "null"),
        ("/", "cannot be the output folder"),
        ("r.yaml", "is a file"),
        ("r.yaml/out", "is a file"),
    ],
    ids=lambda value: value[:20].replace("\0", "0"),
)
def test_names_that_cannot_be_written_are_refused_at_once(out, words, more, place, capsys, monkeypatch):
    Path("dangling").symlink_to("nowhere")
    Path("linked").symlink_to("out")
    refused([*PRUNE, out, "--no-evaluate", *more], [words], place, capsys)


def test_a_mount_point_is_refused_before_the_work(place, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(place / "out"))
    with pytest.raises(InputError, match="out: is a mount point"), new_folder(place / "out", force=True):
        pytest.fail("refused before anything is done")


def test_what_changed_meanwhile_is_not_replaced(place):
    with pytest.raises(InputError, match="out: changed while"), new_folder(place / "out", force=True):
        shutil.rmtree("out")
        shutil.copytree("home", "out")
    assert Path("out/thesis.txt").exists()


def test_the_mark_is_json(place):
    assert json.loads(Path("out", MARK).read_text()) == {"written_by": "compress"}
    assert Path("compared/r", MARK).exists() and Path("home/delta", MARK).exists()
