"""What lies beside the weights: a model's own files travel, nothing else does unless it is asked for."""

import json
import os
from pathlib import Path

import pytest
import zoo

from compress import cli
from compress.checkpoint.beside import WRITTEN
from compress.checkpoint.open import open_checkpoint
from compress.checkpoint.ours import MARK

RECIPE = "calibrate: {data: random, samples: 2, length: 16}\nsteps:\n- {prune: channels, by: random, remove: 25%}\n"
OWN = [
    "tokenizer.json",
    "tokenizer_config.json",
    "merges.txt",
    "vocab.json",
    "spiece.model",
    "preprocessor_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "additional_chat_templates/tools.jinja",
    "LICENSE.txt",
    "NOTICE",
    "modules.json",
    "1_Pooling/config.json",
]
OTHERS = [
    "secret.env",
    "training_args.json",
    "checkpoint-500/optimizer.pt",
    "checkpoint-500/tokenizer.json",
    "small/config.json",
    "small/model.safetensors",
    "logs/today.txt",
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory: a model `in` among files of all sorts, and a recipe."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(RECIPE)
    zoo.save("llama", Path("in"))
    for name in [*OWN, *OTHERS, ".env"]:
        (file := Path("in", name)).parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text("{}")
    Path("outside.txt").write_text("not the model's")
    Path("in/LICENSE").symlink_to("../outside.txt")
    Path("in/NOTICE.md").symlink_to("LICENSE.txt")
    return tmp_path


def beside(folder):
    """Files of an output that are neither weights nor written by every run."""
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return files - WRITTEN - {"model.safetensors", MARK}


def test_a_models_own_files_travel_and_the_rest_is_named(place, capsys):
    assert cli.call(["r.yaml", "in", "out", "--no-evaluate"]) == 0
    assert beside(Path("out")) == {*OWN, "NOTICE.md"}
    said = capsys.readouterr().err
    assert "secret.env" in said
    assert "--include" in said
    notes = " ".join(json.loads(Path("out/report.json").read_text())["notes"])
    assert "LICENSE," in notes + ","  # a link that leads out of the folder
    assert "secret.env" in notes


def test_what_is_asked_for_travels_through_every_step(place):
    Path("two.yaml").write_text(RECIPE + "- {prune: channels, by: random, remove: 10%}\n")
    asked = ["--include", "logs", "--include", "training_*.json"]
    assert cli.call(["two.yaml", "in", "out", "--no-evaluate", *asked]) == 0
    assert beside(Path("out")) == {*OWN, "NOTICE.md", "logs/today.txt", "training_args.json"}


def test_a_pattern_without_a_file_is_an_error(place, capsys):
    assert cli.call(["r.yaml", "in", "out", "--no-evaluate", "--include", "assets/*"]) == 2
    assert "--include assets/*" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["LICENSE", ".env"])
def test_neither_links_out_nor_hidden_files_can_be_asked_for(place, name, capsys):
    assert cli.call(["r.yaml", "in", "out", "--no-evaluate", "--include", name]) == 2
    assert f"--include {name}" in capsys.readouterr().err
    assert not Path("out").exists()


def test_snapshots_of_the_hub_are_links_to_its_blobs(place):
    blobs, snapshot = place / "models--a--b/blobs", place / "models--a--b/snapshots/abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "notes.txt"):
        given = Path("in", name)
        (blobs / name).write_bytes(given.read_bytes() if given.exists() else b"")
        os.symlink(f"../../blobs/{name}", snapshot / name)
    opened = open_checkpoint(snapshot)
    assert [file.name for file in opened.side_files] == ["tokenizer.json"]
    assert [file.name for file in opened.staying] == ["notes.txt"]


def test_deltas_too(place):
    zoo.save("llama", Path("base"))
    Path("d.yaml").write_text(RECIPE.replace("channels, by: random", "delta, base: base, by: dare"))
    changed = bytearray(Path("in/model.safetensors").read_bytes())
    changed[-4:] = b"\0\0\0\0"
    Path("in/model.safetensors").write_bytes(changed)
    assert cli.call(["d.yaml", "in", "delta", "--no-evaluate"]) == 0
    assert "secret.env" not in beside(Path("delta"))
    assert {"tokenizer.json", "LICENSE.txt"} <= beside(Path("delta"))


def test_a_link_is_not_published(place, capsys):
    assert cli.call(["r.yaml", "in", "out", "--no-evaluate"]) == 0
    Path("out/passwords").symlink_to("../outside.txt")
    assert cli.call(["push", "out", "org/name", "--dry-run"]) == 2
    assert "passwords" in capsys.readouterr().err
