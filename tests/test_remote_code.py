"""No command runs, asks for, or passes on a checkpoint's code unless `--trust-remote-code` says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import planted
import pytest
import spoken
import transformers

from compress import cli
from compress.checkpoint.code import without_code
from compress.errors import InputError

pytestmark = pytest.mark.slow

TEXT = "calibrate: {data: random, samples: 2, length: 16}\nsteps:\n"
RECIPES = {
    "units": TEXT + "- {prune: channels, by: wanda, remove: 25%}\n",
    "uneven": TEXT + "- {prune: heads, by: random, remove: 25%, widths: per-layer, skip_layers: [0]}\n",
    "weights": TEXT + "- {prune: weights, by: magnitude, remove: 50%}\n",
    "steps": TEXT + "- {prune: channels, by: random, remove: 25%}\n- {prune: weights, by: magnitude, remove: 50%}\n",
    "onnx": TEXT + "- {prune: channels, by: random, remove: 25%}\nexport: {onnx: {cache: false}}\n",
    "delta": TEXT + "- {prune: delta, base: base, by: dare, remove: 50%}\n",
}


@pytest.fixture
def marks(tmp_path, monkeypatch, harvested):
    """The working directory holds the planted model `in`, its planted base and the recipes."""
    monkeypatch.setenv("COMPRESS_CACHE", str(harvested))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    marks = tmp_path / "marks"
    planted.plant(Path("in"), marks)
    planted.plant(Path("base"), marks)
    bytes_ = bytearray((file := Path("base/model.safetensors")).read_bytes())
    bytes_[-4:] = b"\0\0\0\0"  # so that there is a difference
    file.write_bytes(bytes_)
    for name, text in RECIPES.items():
        Path(f"{name}.yaml").write_text(text)
    planted.watch(monkeypatch, marks)
    return marks


def run(*arguments):
    assert cli.call(list(arguments)) == 0


@pytest.mark.parametrize("recipe", ["units", "uneven", "weights", "steps"])
def test_pruning(recipe, marks):
    run(f"{recipe}.yaml", "in", "out", *([] if recipe == "units" else ["--no-evaluate"]))
    run("eval", "out", "--against", "in", "--samples", "2", "--length", "32")
    run("push", "out", "org/name", "--dry-run")
    run("report", "out")
    assert planted.traces(Path("out")) == []
    assert list(marks.iterdir()) == []


def test_exports(marks, monkeypatch):
    run("onnx.yaml", "in", "out", "--no-evaluate")
    assert planted.traces(Path("out")) == []
    opened = []

    def exported(model, folder, settings):  # once is enough of the exporter, which sees no file of the checkpoint
        opened.append(model)
        raise InputError("opened")

    monkeypatch.setattr("compress.export.onnx.export_model", exported)
    assert cli.call(["export", "in", "-o", "graph"]) == 2
    assert len(opened) == 1
    assert list(marks.iterdir()) == []


def test_comparison(marks):
    run("compare", "units.yaml", "uneven.yaml", "in", "-o", "out", "--no-latency")
    assert planted.traces(Path("out")) == []
    assert list(marks.iterdir()) == []


def test_deltas(marks):
    run("delta.yaml", "in", "delta")
    assert planted.traces(Path("delta")) == []
    description = json.loads(Path("delta/delta.json").read_text())
    description["config"]["auto_map"] = {"AutoConfig": "evil_config.EvilConfig"}  # a stranger's delta
    Path("delta/delta.json").write_text(json.dumps(description))
    Path("delta/evil_config.py").write_text(Path("in/evil_config.py").read_text())
    run("apply-delta", "base", "delta", "out")
    assert planted.traces(Path("out")) == []
    assert list(marks.iterdir()) == []


def test_looking(marks):
    run("inspect", "in")
    run("units.yaml", "in", "out", "--dry-run")
    run("plan", "units.yaml", "in", "--to", "plan.json")
    run("apply", "plan.json", "in", "out", "--no-evaluate")
    assert planted.traces(Path("out")) == []
    assert list(marks.iterdir()) == []


def test_the_folder_is_no_place_to_import_from(marks, tmp_path):
    """`python -m compress` inside of a checkpoint does not take the checkpoint's torch.py for torch."""
    command = [sys.executable, "-m", "compress", "inspect", "."]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(command, cwd="in", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(marks.iterdir()) == []


def test_what_was_left_behind_is_said(marks, capsys):
    run("units.yaml", "in", "out", "--no-evaluate")
    said = capsys.readouterr().err
    assert "evil_config.py" in said
    assert "--trust-remote-code" in said
    notes = " ".join(json.loads(Path("out/report.json").read_text())["notes"])
    assert "evil_config.py" in notes


def test_with_the_flag_code_runs_and_travels(marks, monkeypatch):
    raw = json.loads(Path("in/config.json").read_text())
    for name in ("attn_implementation", "_attn_implementation"):
        del raw[name]
    Path("in/config.json").write_text(json.dumps(raw))
    run("units.yaml", "in", "out", "--no-evaluate", "--trust-remote-code")
    assert (marks / "evil_config").exists()
    assert {"evil_config.py", "evil_tokenizer.py"} <= set(planted.traces(Path("out")))
    assert json.loads(Path("out/config.json").read_text())["auto_map"]["AutoConfig"] == "evil_config.EvilConfig"


def test_the_flag_never_replaces_our_own_classes(marks):
    """A folder of our kind with another's modeling file is opened by ours, and the file is written anew."""
    run("uneven.yaml", "in", "out", "--no-evaluate")
    own = Path("out/modeling_compress.py").read_text()
    Path("out/modeling_compress.py").write_text(Path("in/evil_config.py").read_text() + own)
    run("weights.yaml", "out", "again", "--no-evaluate")
    run("weights.yaml", "out", "trusted", "--no-evaluate", "--trust-remote-code")
    assert list(marks.iterdir()) == []
    for folder in ("again", "trusted"):
        assert Path(folder, "modeling_compress.py").read_text() == own
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
        assert model.config.num_hidden_layers == 3


def test_a_model_that_is_only_code_is_refused_with_the_cure(marks, capsys):
    raw = json.loads(Path("in/config.json").read_text())
    raw |= {"model_type": "evil", "architectures": ["EvilForCausalLM"]}
    Path("in/config.json").write_text(json.dumps(raw))
    assert cli.call(["units.yaml", "in", "out"]) == 2
    assert "--trust-remote-code" in capsys.readouterr().err
    assert list(marks.iterdir()) == []


def test_a_tokenizer_that_is_only_code_is_refused(marks, capsys):
    spoken.save("llama", Path("other"))
    given = json.loads(Path("other/tokenizer_config.json").read_text())
    given |= {"auto_map": {"AutoTokenizer": [None, "evil_tokenizer.EvilTokenizer"]}, "tokenizer_class": "EvilTokenizer"}
    Path("other/tokenizer_config.json").write_text(json.dumps(given))
    Path("other/evil_tokenizer.py").write_text(Path("in/evil_tokenizer.py").read_text())
    text = RECIPES["units"].replace("data: random", "data: docs")
    Path("docs.yaml").write_text(text)
    assert cli.call(["docs.yaml", "other", "out"]) == 2
    assert "--trust-remote-code" in capsys.readouterr().err
    assert list(marks.iterdir()) == []


def test_labels_by_number_are_no_code():
    config = {"id2label": {0: "good", 1: "bad"}, "auto_map": {"AutoConfig": "evil_config.EvilConfig"}}
    assert without_code(config) == {"id2label": {0: "good", 1: "bad"}}
