"""compress eval: accuracy, speed and similarity by hand; and how long the evaluation of a run may take."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import spoken
import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    T5Model,
)

from compress import cli
from compress.checkpoint.open import open_checkpoint
from compress.data.labelled import read_labelled
from compress.errors import InputError
from compress.evaluate import before_after, turns
from compress.evaluate.load import data_of, held_out, load_model
from compress.evaluate.read import quality_of
from compress.evaluate.speed import speed
from compress.inputs.choose import inputs_of
from compress.inputs.text import Text
from compress.model.model import Model
from compress.recipe.part import Part
from compress.registry import sources

QUICK = ["--samples", "4", "--length", "32", "--json"]


@pytest.fixture(autouse=True)
def cache(harvested, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(harvested))


@pytest.fixture
def classifier(tmp_path):
    """A folder with a classifier of three classes, and a .jsonl of texts labelled by what it says itself."""
    folder = spoken.save("bert_encoder", tmp_path / "classifier")
    torch.manual_seed(0)
    config = BertConfig.from_pretrained(folder, id2label={0: "bad", 1: "so-so", 2: "good"}, initializer_range=1.0)
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [f"{word} text that is {word}" for word in "some any this that good bad long short".split()]  # noqa: SIM905
    with torch.no_grad():
        said = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in texts]
    return folder, texts, said


def test_accuracy_is_the_share_of_labels_that_the_model_says(classifier, tmp_path, capsys):
    folder, texts, said = classifier
    labels = [config for config in ("bad", "so-so", "good")]
    rows = [{"text": text, "label": labels[one]} for text, one in zip(texts, said, strict=True)]
    rows[0]["label"] = (said[0] + 1) % 3  # one that is wrong, written as a number
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.call(["eval", str(folder), "--data", str(tmp_path / "data.jsonl"), "--length", "32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == {"value": 7 / 8, "samples": 8}
    assert cli.call(["eval", str(folder)]) == 2
    assert '{"text": …, "label": …}' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "a"}', ":1: no text and label"),
        ("nonsense", ":1: no text and label"),
        ('{"text": "a", "label": "worse"}', "'worse' is no class of the model"),
        ('{"text": "a", "label": []}', "is no class of the model"),
        ("", "has no line"),
    ],
)
def test_labels_that_cannot_be_used(line, words, tmp_path):
    (tmp_path / "data.jsonl").write_text(line)
    with pytest.raises(InputError, match=words):
        read_labelled(tmp_path / "data.jsonl", {0: "bad", 1: "good"})


def test_speed_counts_what_was_read_and_written():
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=61
    )
    model = LlamaForCausalLM(config).eval()
    shapes = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    found = speed(model, inputs_of(model), {"input_ids": torch.ones(1, 9, dtype=torch.long)}, written=5, rows=3)
    assert shapes.count((1, 1)) == 3 * 5
    assert (3, 9) in shapes
    assert found.decode is not None and found.decode > 0
    assert (found.prefill.batch, found.prefill.length, found.rows) == (1, 9, 3)


@pytest.mark.slow
def test_an_encoder_is_compared_with_the_dense_one(tmp_path, capsys):
    dense = spoken.save("bert_encoder", tmp_path / "dense")
    shutil.copytree(dense, tmp_path / "same")
    other = spoken.save("bert_encoder", tmp_path / "other", num_hidden_layers=2)
    for folder in (tmp_path / "same", other):
        assert cli.call(["eval", str(folder), "--against", str(dense), "--latency", *QUICK]) == 0
    same, less = (json.loads(text) for text in capsys.readouterr().out.replace("}\n{", "}\0{").split("\0"))
    assert same["similarity"]["cosine"] == pytest.approx(1)
    assert same["speed"]["decode"] is None
    source = Model.of(open_checkpoint(dense))
    rows = held_out(source.inputs, source.checkpoint, length=32, samples=4)
    with torch.no_grad():
        one, two = (
            torch.cat([load_model(open_checkpoint(folder))(**batch).last_hidden_state.mean(1) for batch in rows])
            for folder in (dense, other)
        )
    assert less["similarity"]["cosine"] == pytest.approx(torch.cosine_similarity(one, two).mean().item())
    assert less["flops"] < less["against"]["flops"]
    assert cli.call(["eval", str(other), *QUICK]) == 0
    assert "--against" in json.loads(capsys.readouterr().out)["notes"][0]


@pytest.mark.slow
def test_times_of_both_models_are_taken_in_turns(tmp_path, monkeypatch, capsys):
    dense = spoken.save("llama", tmp_path / "dense")
    other = spoken.save("llama", tmp_path / "other", num_hidden_layers=1)
    calls, plain = [], LlamaForCausalLM.forward

    def noted(self, *given, **more):
        calls.append((len(self.model.layers), *more["input_ids"].shape))
        return plain(self, *given, **more)

    monkeypatch.setattr(LlamaForCausalLM, "forward", noted)
    assert cli.call(["eval", str(other), "--against", str(dense), "--latency", *QUICK]) == 0
    found = json.loads(capsys.readouterr().out)
    one, two = (spoken_layers(folder) for folder in (dense, other))
    many = [layers for layers, rows, _ in calls if rows == 8]  # throughput is of eight sequences
    assert many == [one, two] * turns.WARM_UP + [one, two, two, one] * (turns.ROUNDS // 2) + [one, two]
    assert set(found["changes"]) == {"perplexity", "prefill", "decode", "throughput"}
    for name in ("prefill", "decode", "throughput"):
        assert found["changes"][name]["low"] <= found["changes"][name]["value"] <= found["changes"][name]["high"]


def spoken_layers(folder):
    return json.loads((folder / "config.json").read_text())["num_hidden_layers"]


@pytest.mark.slow
def test_a_task_that_there_is_not_is_told_before_torch_is_loaded(tmp_path):
    pytest.importorskip("lm_eval")
    code = (
        "import sys; from compress import cli; code = cli.call(['eval', 'in', '--tasks', 'docs_order,nosuch_task']);"
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ["2", "False"]
    assert "no task 'nosuch_task'" in done.stderr and "docs_word" in done.stderr


class Ticking:
    """A clock that goes on by a second each time that it is looked at: once at the start, and from the second batch on
    after each; 70 % of the time is for quality."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.mark.parametrize(
    ("seconds", "batches"),
    [pytest.param(None, 16, marks=pytest.mark.slow), pytest.param(1000, 16, marks=pytest.mark.slow), (10, 8), (0, 2)],
)
def test_quality_is_measured_batch_by_batch_until_the_time_is_up(tmp_path, seconds, batches):
    folder = spoken.save("llama", tmp_path / "model")
    source = Model.of(open_checkpoint(folder))
    evaluator = before_after.Evaluator(source, timed=False, clock=Ticking())
    found = evaluator(folder, seconds)
    assert found.quality is not None
    after = found.quality.record["perplexity"]
    assert found.quality.dense_record["perplexity"] == after
    assert after["samples"] == 4 * batches
    rows = held_out(source.inputs, source.checkpoint, length=256, samples=64)[:batches]
    assert found.quality.record == quality_of(load_model(source.checkpoint), rows).record
    assert not found.changes["perplexity"].measurable
    again = evaluator(folder, None)  # as many as the first, or the two would not compare
    assert again.quality is not None and again.quality.record == found.quality.record


def bare(folder):
    """A T5 without its head."""
    model = T5Model.from_pretrained(spoken.save("t5", folder, tie_word_embeddings=True))
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "bert", "bert_encoder", "t5", "t5_bare"])
def test_models_too_large_for_memory_are_read_block_by_block(tmp_path, monkeypatch, name):
    if name == "t5_bare":
        dense, other = bare(tmp_path / "dense"), bare(tmp_path / "other")
        changed = T5Model.from_pretrained(other)
        torch.nn.init.zeros_(changed.encoder.block[1].layer[1].DenseReluDense.wo.weight)
        changed.save_pretrained(other)
    else:
        fewer = {"num_layers" if name == "t5" else "num_hidden_layers": 1}
        dense, other = spoken.save(name, tmp_path / "dense"), spoken.save(name, tmp_path / "other", **fewer)
    source = Model.of(open_checkpoint(dense))
    monkeypatch.setattr(before_after, "SAMPLES", 16)
    whole = before_after.Evaluator(source)(other)
    monkeypatch.setattr(before_after, "LARGEST", 1)
    monkeypatch.setattr("compress.evaluate.whole.load_model", None)  # nothing is loaded whole
    streamed = before_after.Evaluator(source)(other)
    assert set(whole.changes) - set(streamed.changes) == {"latency"}
    for figure, change in streamed.changes.items():
        assert change.value == pytest.approx(whole.changes[figure].value, rel=1e-4)
        assert (change.low, change.high) == pytest.approx((whole.changes[figure].low, whole.changes[figure].high), 1e-4)
    assert whole.quality is not None and streamed.quality is not None
    assert streamed.quality.main.value == pytest.approx(whole.quality.main.value, rel=1e-4)
    assert streamed.latency_after is None and "latency not measured" in streamed.notes[0]
    few = before_after.Evaluator(source, clock=Ticking())(other, 0)
    assert few.changes[figure].samples == 4 * before_after.FEWEST


def test_a_model_that_cannot_be_evaluated_says_why(tmp_path, capsys):
    folder = spoken.save("llama", tmp_path / "model")
    source = Model.of(open_checkpoint(folder))
    found = before_after.Evaluator(source, data=Part("text", {"path": str(tmp_path / "none.txt")}))(folder)
    assert found.quality is None and "no such file" in found.notes[0]
    assert "warning: not evaluated" in capsys.readouterr().err


def test_the_text_is_of_another_source_than_calibrations():
    text = Text(nn.Module(), None)
    assert text.held_out([Part("docs"), None, "some/data"]) == Part("manuals")
    assert text.held_out([Part("docs"), Part("manuals")]) == Part("docs", {"split": "test"})
    assert data_of(text, None) == data_of(text, "manuals") == Part("manuals")
    assert data_of(text, "docs") == Part("docs", {"split": "test"})
    running = list(sources.get("manuals").target())
    calibration, other = set(sources.get("docs").target()), [part for text in running for part in text.split("\n\n")]
    assert len(other) > 200 and len(set(other)) == len(other) > 3 * len(running)
    assert sum(text in calibration for text in other) < 0.05 * len(other)
