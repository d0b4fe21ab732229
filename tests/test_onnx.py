"""Graphs that ONNX Runtime runs: every architecture's is torch's function, and a decoder's generates."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import zoo

from compress.checkpoint.open import open_checkpoint
from compress.cli.call import call
from compress.errors import InputError, ModelError, VerifyError
from compress.evaluate.load import load_model
from compress.evaluate.ort_latency import ort_speed
from compress.model.model import Model
from compress.onnx import FILE, Session, export_model, graph, greedy
from compress.onnx.settings import OnnxSettings
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe

WHOLE = OnnxSettings(cache=False)
ALTERNATE = ("gemma2", "gpt_oss")
"""Every other layer of these sees a window only."""

STARTS = {"gpt2": None, "t5": 0}
"""Graphs of these generate too, from this token of the decoder's where there is an encoder."""

UNEVEN = """
steps:
- {prune: heads, by: random, remove: 50%, skip_layers: [0]}
- {prune: channels, by: {random: {salt: 1}}, remove: 40%, skip_layers: [1]}
"""


def exported(model, folder, settings=WHOLE):
    folder.mkdir()
    return export_model(model, folder, settings)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A Llama whose layers differ in heads and channels, written and exported by one recipe."""
    place = tmp_path_factory.mktemp("uneven")
    zoo.save("llama", place / "dense", max_position_embeddings=128, num_hidden_layers=2)
    recipe = parse_recipe(UNEVEN + "export: onnx\n")
    report = run(recipe, place / "dense", place / "out", Options(evaluate=False))
    return place / "out", report


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    place = tmp_path_factory.mktemp("bert")
    zoo.save("bert", place / "model", num_hidden_layers=1)
    return place / "model"


@pytest.fixture
def copied(bert, tmp_path_factory, monkeypatch):
    """The exporter, for tests of what comes after it: of every model it makes the same graph, that of `bert`."""
    kept = tmp_path_factory.getbasetemp() / "graph-of-bert"
    if not kept.exists():
        made = exported(load_model(open_checkpoint(bert)), kept)
        (kept / "opset").write_text(str(made.opset))

    def copy(model, interface, settings, path):
        shutil.copy(kept / FILE, path)
        return int((kept / "opset").read_text())

    monkeypatch.setattr("compress.onnx.folder.write_graph", copy)


@pytest.mark.parametrize("name", zoo.few([*zoo.MODELS, "mixtral", "qwen3_moe", "gpt_oss"], ("bert",)))
def test_graph_of_every_architecture_is_torchs_function(name, tmp_path):
    depth = zoo.ARCHITECTURES[name].keys["layers"]
    zoo.save(name, tmp_path / "model", **{depth: 2 if name in ALTERNATE else 1})
    model = zoo.stock(name, tmp_path / "model")
    ids = torch.randint(3, 96, (4, 11), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    left = model.can_generate() and name != "t5"
    mask[1, slice(0, 4) if left else slice(7, 11)] = 0
    more = {"decoder_input_ids": ids[:, :6]} if name == "t5" else {}
    if left:
        more["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        wanted = model(input_ids=ids, attention_mask=mask, **more)[0].numpy()
    exported(model, tmp_path / "onnx")
    # Nothing of ours from here on.
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / FILE)
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids), **more}
    names = [each.name for each in session.get_inputs()]
    found = session.run(None, {key: value.numpy() for key, value in given.items() if key in names})[0]
    seen = np.ones((4, 6), bool) if name == "t5" else mask.bool().numpy()
    assert np.abs(found - wanted)[seen].max() <= 1e-4 * max(1, np.abs(wanted).max())
    if name in STARTS:
        generates_the_same(model, tmp_path / "onnx" / FILE, STARTS[name])


def generates_the_same(model, file, start):
    """Without a cache; `start`: the decoder's first token where there is an encoder."""
    session = Session(file)
    assert not session.cached
    prompt = torch.tensor([[5, 6, 7, 8]])
    found = greedy(session, prompt.numpy(), 5, start=start)
    said = {"decoder_start_token_id": start} if start is not None else {}
    wanted = model.generate(prompt, max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0, **said)
    assert np.array_equal(found, wanted[:, -5:].numpy())


@pytest.mark.slow
def test_per_layer_widths_generate_the_same_64_tokens_in_onnx_runtime_alone(uneven):
    folder, report = uneven
    session = Session(folder / "onnx" / FILE)
    heads = {shape[1] for name, shape in session.shapes.items() if name.startswith("past_key_values")}
    assert len(heads) > 1, "the layers should differ"
    model = load_model(open_checkpoint(folder, trust_remote_code=True))
    prompt = torch.randint(3, 96, (2, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(prompt)
    mask[0, :3] = 0
    wanted = model.generate(
        input_ids=prompt, attention_mask=mask, max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
    )[:, 9:]
    found = greedy(session, prompt.numpy(), 64, mask=mask.numpy())
    assert np.array_equal(found, wanted.numpy())
    result = report["exports"]["onnx"]["result"]
    assert result["files"].keys() == {FILE}
    assert all(one["absolute"] < 1e-4 for one in result["parity"]) and len(result["parity"]) == 2


@pytest.mark.slow
def test_generation_ends_at_the_stop_token_and_fills_rows_that_are_done(uneven):
    session = Session(uneven[0] / "onnx" / FILE)
    prompt = np.array([[5, 6, 7], [8, 9, 10]])
    free = greedy(session, prompt, 6)
    stop = int(free[0, 2])
    stopped = greedy(session, prompt, 6, stop=stop)
    end = list(free[0]).index(stop)
    assert (stopped[0, end:] == stop).all() and (stopped[0, :end] == free[0, :end]).all()


@pytest.mark.slow
def test_axes_and_opset_are_those_asked_for(bert, tmp_path):
    model = load_model(open_checkpoint(bert))
    made = exported(model, tmp_path / "fixed", OnnxSettings(dynamic=[], batch=2, length=16, opset=19))
    assert made.inputs["input_ids"] == [2, 16] and len(made.parity) == 1 and made.opset == 19
    assert onnx.load(tmp_path / "fixed" / FILE).opset_import[0].version == 19
    made = exported(model, tmp_path / "rows", OnnxSettings(dynamic=["batch"], length=16))
    assert made.inputs["input_ids"] == ["batch", 16]
    with pytest.raises(InputError, match="at most 64"):
        exported(model, tmp_path / "long", OnnxSettings(dynamic=["batch"], length=65))


def test_a_cached_decoder_needs_a_free_sequence(tmp_path):
    zoo.save("gpt2", tmp_path / "model", n_layer=1)
    with pytest.raises(InputError, match="reads texts of any length"):
        exported(zoo.stock("gpt2", tmp_path / "model"), tmp_path / "onnx", OnnxSettings(dynamic=["batch"]))


@pytest.mark.slow
def test_large_weights_lie_beside_the_graph(bert, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "LARGEST_FILE", 1000)
    made = exported(load_model(open_checkpoint(bert)), tmp_path / "onnx")
    assert made.files.keys() == {FILE, FILE + ".data"} and made.files[FILE] < made.files[FILE + ".data"]


@pytest.mark.slow
def test_the_graph_tells_nothing_of_the_machine_it_was_made_on(uneven):
    assert b"site-packages" not in (uneven[0] / "onnx" / FILE).read_bytes()


def test_models_of_no_known_kind_of_inputs_are_refused(tmp_path):
    from transformers import ASTConfig, ASTModel

    class Nose(ASTModel):
        main_input_name = "scents"

        def forward(self, scents):
            return super().forward(scents)

    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    with pytest.raises(ModelError, match="reads 'scents'"):
        exported(Nose(ASTConfig(**shape)), tmp_path / "onnx")


@pytest.mark.slow
def test_a_wrong_graph_is_not_accepted(bert, copied, tmp_path):
    model = load_model(open_checkpoint(bert))
    exported(model, tmp_path / "right")
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.bias[0] += 1
    with pytest.raises(VerifyError, match="ONNX Runtime is"):
        exported(model, tmp_path / "wrong")


@pytest.mark.slow
def test_command_writes_beside_the_weights_and_tells_the_difference(bert, tmp_path, capsys):
    target = tmp_path / "onnx"
    assert call(["export", str(bert), "-o", str(target), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(target) and said["parity"][1]["relative"] < 1e-4
    assert (target / FILE).is_file()
    assert call(["export", str(bert), "-o", str(target)]) == 2, "it exists"


@pytest.mark.slow
def test_command_keeps_what_fails_as_partial(bert, copied, tmp_path, capsys):
    target = tmp_path / "onnx"
    assert call(["export", str(bert), "-o", str(target), "--tolerance", "1e-30"]) == 5
    assert "the tolerance is 1e-30" in capsys.readouterr().err
    assert (tmp_path / "onnx.partial" / FILE).is_file() and not target.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere/at-all"], "nowhere/at-all"),
        (["{model}", "--dynamic", "width"], "--dynamic"),
        (["{model}", "--opset", "11"], "--opset 11"),
        (["{model}", "--tolerance", "0"], "--tolerance 0"),
    ],
)
def test_command_refuses_what_it_cannot_do(arguments, said, bert, tmp_path, capsys):
    assert call(["export", *(each.format(model=bert) for each in arguments), "-o", str(tmp_path / "o")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_recipe_with_a_parity_that_fails_keeps_its_output_as_partial(bert, copied, tmp_path):
    text = "steps: [{prune: channels, by: magnitude, remove: 25%}]\nexport: {onnx: {tolerance: 1.0e-30}}"
    with pytest.raises(VerifyError, match="kept in") as refused:
        run(parse_recipe(text), bert, tmp_path / "out", Options(evaluate=False))
    assert "the tolerance is 1e-30" in str(refused.value)
    assert (tmp_path / "out.partial" / "onnx" / FILE).is_file() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("export", ["tflite", "{onnx: {dynamic: [batch, batch]}}", "{onnx: {opset: 3}}"])
def test_recipe_refuses_unknown_exports(export):
    with pytest.raises(InputError, match="export"):
        parse_recipe(f"steps: [{{prune: channels, by: magnitude, remove: 25%}}]\nexport: {export}")


@pytest.mark.slow
def test_latency_in_onnx_runtime_stands_beside_the_dense_models(bert, tmp_path):
    text = "steps: [{prune: channels, by: magnitude, remove: 50%}]\nexport: onnx"
    report = run(parse_recipe(text), bert, tmp_path / "out", Options(evaluate="full"))  # however long it takes
    for side in ("before", "after"):
        timed = report["exports"]["onnx"]["speed"][side]
        assert timed["decode"] is None and timed["prefill"]["seconds"] > 0 and timed["prefill"]["length"] == 64


@pytest.mark.slow
def test_decoding_is_timed_for_a_graph_with_a_cache(uneven):
    inputs = Model.of(open_checkpoint(uneven[0], trust_remote_code=True)).inputs
    timed = ort_speed(uneven[0] / "onnx" / FILE, inputs, {"input_ids": torch.arange(3, 15)[None]}, written=4)
    assert timed.decode is not None and timed.decode > 0 and timed.prefill.length == 12
