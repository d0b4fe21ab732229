"""ONNX files in: the graph runs in torch as in ONNX Runtime, and what is left computes what the masked one does."""

from __future__ import annotations

import json
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnxruntime
import pytest
import spoken
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import compress
from compress.cli.call import call
from compress.errors import VerifyError
from compress.model.model import Model
from compress.onnx import export_model
from compress.onnx.settings import OnnxSettings
from compress.onnx_model.architecture import open_onnx
from compress.onnx_model.examples import examples
from compress.onnx_model.file import OnnxFile
from compress.onnx_model.module import OnnxModule
from compress.recipe.schema import Calibrate

STYLES = {
    "initialisers": {},
    "constants": {"constants": True},
    "computed": {"computed": True},
    "old": {"opset": 11},
    "new": {"opset": 21, "tied": False},
    "half": {"dtype": np.float16},
    "cast": {"cast": True},
}
NETWORKS = {"initialisers": {}, "constants": {"constants": True}, "old": {"opset": 11}, "new": {"opset": 21}}

RANDOM = """
steps:
- {prune: [heads, channels], by: {random: {salt: SALT}}, remove: 40%, widths: per-layer}
"""


def runtime(path: Path, inputs: dict) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = {each.name: np.asarray(inputs[each.name]) for each in session.get_inputs()}
    return dict(zip((each.name for each in session.get_outputs()), session.run(None, given), strict=True))


def ids(rows: int, length: int, top: int = graphs.VOCABULARY) -> dict[str, np.ndarray]:
    return {"input_ids": np.random.default_rng(rows).integers(0, top, (rows, length))}


def stored(path: Path) -> dict[str, np.ndarray]:
    model = onnx.load(str(path))
    found = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    constants = [node for node in model.graph.node if node.op_type == "Constant"]
    return found | {node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in constants}


def zeroed(dense: Path, path: Path, kept: dict[str, list[tuple[int, np.ndarray]]]) -> Path:
    """The dense file with zeros at what is not kept of each array, along some dimensions; written by onnx alone."""
    model = onnx.load(str(dense))

    def masked(name: str, value: np.ndarray) -> np.ndarray:
        value = value.copy()
        for dim, mask in kept.get(name, ()):
            value[(slice(None),) * dim + (~mask,)] = 0
        return value

    for each in model.graph.initializer:
        each.CopyFrom(numpy_helper.from_array(masked(each.name, numpy_helper.to_array(each)), each.name))
    for node in model.graph.node:
        if node.op_type == "Constant":
            value = masked(node.output[0], numpy_helper.to_array(node.attribute[0].t))
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(value))
    onnx.save(model, str(path))
    return path


def removed(dense: Path, decision: dict[str, list[int]]) -> dict[str, list[tuple[int, np.ndarray]]]:
    """Of the hand-written transformer: which rows and columns go with the heads and channels that a plan removes."""
    found: dict[str, list[tuple[int, np.ndarray]]] = {}
    for family, indices in decision.items():
        layer, kind = family.split(".")[1], family.rpartition(".")[2]
        size = graphs.HEADS if kind == "heads" else graphs.INNER
        mask = np.isin(np.arange(size), indices)
        if kind == "heads":
            mask = np.repeat(mask, graphs.HEAD)
        out, back = (("q", "k", "v"), "o") if kind == "heads" else (("up",), "down")
        for name in out:
            found[f"layers.{layer}.{name}.weight"] = [(1, mask)]
            found[f"layers.{layer}.{name}.bias"] = [(0, mask)]
        found[f"layers.{layer}.{back}.weight"] = [(0, mask)]
    return found


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("style", [*STYLES, "anonymous"])
def test_a_transformer_runs_in_torch_as_in_onnx_runtime(style, tmp_path):
    path = graphs.transformer(tmp_path / "model.onnx", **STYLES.get(style, {"anonymous": True, "tied": False}))
    module = OnnxModule(OnnxFile(path))
    for rows, length in ((2, 7), (3, 1)):
        inputs = ids(rows, length)
        (found,) = module(**{name: torch.from_numpy(value) for name, value in inputs.items()}).values()
        wanted = runtime(path, inputs)["logits"]
        share = 0.01 if style in ("half", "cast") else 1e-5  # where ONNX Runtime computes in half precision
        assert np.abs(found.numpy() - wanted).max() <= share * np.abs(wanted).max()


@pytest.mark.parametrize("style", NETWORKS)
def test_convolutions_run_in_torch_as_in_onnx_runtime(style, tmp_path):
    path = graphs.network(tmp_path / "model.onnx", **NETWORKS[style])
    module = OnnxModule(OnnxFile(path))
    inputs = examples(module, rows=3)
    (found,) = module(**inputs).values()
    assert np.abs(found.numpy() - runtime(path, {n: v.numpy() for n, v in inputs.items()})["classes"]).max() <= 1e-5


@pytest.mark.parametrize("style", zoo.few(STYLES, ("initialisers", "computed")))
def test_what_is_left_is_the_masked_transformer(style, tmp_path):
    dense, out = graphs.transformer(tmp_path / "model.onnx", **STYLES[style]), tmp_path / "small.onnx"

    @given(st.integers(0, 2**16))
    @settings(max_examples=2, deadline=None, database=None)
    def check(salt: int) -> None:
        asked = recipe(tmp_path, RANDOM.replace("SALT", str(salt)))
        report = compress.run(asked, dense, out, evaluate=False, force=True)
        kept = json.loads((tmp_path / "small.plan.json").read_text())["steps"][0]["decision"]["kept"]
        assert report["after"]["params"] < report["before"]["params"] and kept
        masked = zeroed(dense, tmp_path / "masked.onnx", removed(dense, kept))
        for rows, length in ((2, 7), (1, 3)):
            wanted, found = (runtime(path, ids(rows, length))["logits"] for path in (masked, out))
            largest = np.abs(wanted).max()
            assert np.abs(wanted - found).max() <= (1e-5 if wanted.dtype == np.float32 else 0.02) * largest
            assert np.abs(wanted - runtime(dense, ids(rows, length))["logits"]).max() > 0.01 * largest

    check()


@pytest.mark.parametrize("style", zoo.few(NETWORKS, ("constants",)))
def test_convolutions_lose_channels_and_their_groups_follow(style, tmp_path):
    dense, out = graphs.network(tmp_path / "model.onnx", **NETWORKS[style]), tmp_path / "small.onnx"
    asked = recipe(tmp_path, "steps: [{prune: channels, by: random, remove: 40%, widths: per-layer}]")
    report = compress.run(asked, dense, out, evaluate=False)
    assert any("ONNX Runtime: equal to the masked input" in note for note in report["notes"])
    shapes = {name: value.shape for name, value in stored(out).items()}
    (depth,) = [node for node in onnx.load(str(out)).graph.node if "depth.weight" in node.input]
    (group,) = [each.i for each in depth.attribute if each.name == "group"]
    assert group == shapes["depth.weight"][0] == shapes["stem.weight"][0] < 8
    assert shapes["left.weight"][1] + shapes["right.weight"][1] < 10


def test_biases_of_a_repair_are_added_where_there_are_none(tmp_path):
    dense, out = graphs.transformer(tmp_path / "model.onnx"), tmp_path / "small.onnx"
    arrays = tmp_path / "samples.npz"
    np.savez(arrays, **ids(8, 6))
    asked = recipe(
        tmp_path,
        f"calibrate: {{data: {arrays}, samples: 8}}\n"
        "steps: [{prune: [heads, channels], by: fluctuation, remove: 30%, repair: bias, widths: per-layer}]",
    )
    report = compress.run(asked, dense, out, latency=False)
    assert {"layers.0.o.bias", "layers.1.o.bias"} <= stored(out).keys() - stored(dense).keys()
    (figure,) = report["quality"]["figures"]
    one, other = (runtime(path, ids(8, 6))["logits"].reshape(8, -1).astype(np.float64) for path in (dense, out))
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert figure["value"] == pytest.approx(cosine.mean(), abs=1e-4) and report["text"] == str(arrays)


def test_external_data_stays_external(tmp_path):
    (tmp_path / "dense").mkdir()
    dense = graphs.transformer(tmp_path / "dense" / "model.onnx", external=True)
    asked = recipe(tmp_path, RANDOM.replace("SALT", "1"))
    compress.run(asked, dense, tmp_path / "small.onnx", evaluate=False)
    names = {file.name for file in tmp_path.iterdir()}
    assert {"small.onnx", "small.onnx.data", "small.plan.json", "small.report.json"} <= names
    assert runtime(tmp_path / "small.onnx", ids(1, 4))["logits"].shape == (1, 4, graphs.VOCABULARY)


def test_the_command_plans_applies_and_inspects(tmp_path, capsys):
    dense = graphs.transformer(tmp_path / "model.onnx")
    plan, out = tmp_path / "plan.json", tmp_path / "small.onnx"
    asked = recipe(tmp_path, RANDOM.replace("SALT", "3"))
    assert call(["plan", str(asked), str(dense), "-o", str(plan), "-q"]) == 0 and not out.exists()
    assert call(["apply", str(plan), str(dense), str(out), "--no-evaluate", "-q"]) == 0
    report = json.loads((tmp_path / "small.report.json").read_text())
    assert (
        report["after"]["params"] == sum(value.size for value in stored(out).values() if value.dtype == np.float32) - 1
    )
    capsys.readouterr()
    assert call(["inspect", str(dense), "--json"]) == 0
    families = {family["name"]: family for family in json.loads(capsys.readouterr().out)["families"]}
    assert families["layers.0.heads"]["count"] == graphs.HEADS and families["layers.1.channels"]["layer"] == 1
    assert call([str(asked), str(dense), str(out), "-q"]) == 2  # it exists
    assert call([str(asked), str(dense), str(tmp_path / "folder"), "-q"]) == 2  # no .onnx file
    assert call(["apply", str(plan), str(out), str(tmp_path / "other.onnx"), "-q"]) == 2  # another model
    assert not list(tmp_path.glob(".small*")) and not (tmp_path / "other.onnx").exists()


def test_a_wrong_cut_does_not_pass_onnx_runtime(tmp_path, monkeypatch):
    dense = graphs.transformer(tmp_path / "model.onnx")
    from compress.surgery import onnx_file

    def shifted(*args, **kwargs):
        proto = changed(*args, **kwargs)
        for each in proto.graph.initializer:
            if each.name == "layers.0.down.weight" and len(args) > 2:  # the cut one, not the masked
                value = numpy_helper.to_array(each)
                each.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value[::-1]), each.name))
        return proto

    changed = onnx_file.changed_proto
    monkeypatch.setattr(onnx_file, "changed_proto", shifted)
    with pytest.raises(VerifyError):
        compress.run(recipe(tmp_path, RANDOM.replace("SALT", "1")), dense, tmp_path / "small.onnx", evaluate=False)
    assert not (tmp_path / "small.onnx").exists() and (tmp_path / "small.onnx.partial").exists()


def test_text_is_calibrated_on_where_a_tokenizer_lies_beside(tmp_path):
    path = graphs.transformer(tmp_path / "model.onnx", layers=1, vocabulary=spoken.VOCABULARY)
    spoken._tokenizer().save_pretrained(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("The cat sat on the mat. " * 40)
    found = Model.of(open_onnx(path))
    calibrate = Calibrate(data=str(text), samples=3, length=8)
    (batch,), _ = found.inputs.batches(calibrate, found.checkpoint)
    wanted = spoken._tokenizer()(text.read_text() + "\n\n")["input_ids"][:24]
    assert batch["input_ids"].flatten().tolist() == wanted
    (drawn,), _ = found.inputs.batches(Calibrate(data="random", samples=3, length=8), found.checkpoint)
    assert drawn["input_ids"].shape == (3, 8) and drawn["input_ids"].max() < spoken.VOCABULARY


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cache"), [("llama", True), ("llama", False), ("bert", False)])
def test_exports_of_transformers_lose_heads_and_channels(name, cache, tmp_path):
    zoo.save(name, tmp_path / "model", **{zoo.ARCHITECTURES[name].keys["layers"]: 2})
    (tmp_path / "onnx").mkdir()
    export_model(zoo.stock(name, tmp_path / "model"), tmp_path / "onnx", OnnxSettings(cache=cache))
    dense, out = tmp_path / "onnx" / "model.onnx", tmp_path / "small.onnx"
    sets = ["calibrate.samples=4", "calibrate.length=8", "steps.0.remove=40%"]
    report = compress.run("flap-20", dense, out, evaluate=False, set=sets)
    assert len({row["name"] for row in report["families"] if row["kept"] < row["size"]}) >= 2
    assert any("ONNX Runtime: equal to the masked input" in note and "3 sizes" in note for note in report["notes"])
    session = onnxruntime.InferenceSession(str(out))
    heads = {each.shape[1] for each in session.get_inputs() if each.name.startswith("past")}
    assert not cache or min(heads) < 2 or len(heads) > 1
