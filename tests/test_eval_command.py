"""compress eval: accuracy, speed and likeness by hand; and one model in memory at a time."""

from __future__ import annotations

import gc
import json
import shutil
import weakref

import pytest
import spoken
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
)

from compress import cli
from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError
from compress.evaluate import before_after, embed
from compress.evaluate.accuracy import read_labelled
from compress.evaluate.load import held_out, load_model
from compress.evaluate.similarity import compare
from compress.evaluate.speed import speed

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
    found = speed(model, torch.ones(1, 9, dtype=torch.long), written=5, rows=3)
    assert shapes.count((1, 1)) == 3 * 5
    assert (3, 9) in shapes
    assert found.decode is not None and found.decode > 0
    assert (found.prefill.batch, found.prefill.length, found.rows) == (1, 9, 3)


def test_an_encoder_is_compared_with_the_dense_one(tmp_path, capsys):
    dense = spoken.save("bert_encoder", tmp_path / "dense")
    shutil.copytree(dense, tmp_path / "same")
    other = spoken.save("bert_encoder", tmp_path / "other", num_hidden_layers=2)
    for folder in (tmp_path / "same", other):
        assert cli.call(["eval", str(folder), "--against", str(dense), "--latency", *QUICK]) == 0
    same, less = (json.loads(text) for text in capsys.readouterr().out.replace("}\n{", "}\0{").split("\0"))
    assert same["similarity"]["cosine"] == pytest.approx(1)
    assert same["speed"]["decode"] is None
    opened = open_checkpoint(dense)
    rows = held_out(opened, length=32, samples=4)
    one, two = (embed(load_model(open_checkpoint(folder)), rows)[0] for folder in (dense, other))
    assert less["similarity"]["cosine"] == pytest.approx(compare(one, two, 32).cosine)
    assert less["flops"] < less["against"]["flops"]
    assert cli.call(["eval", str(other), *QUICK]) == 0
    assert "--against" in json.loads(capsys.readouterr().out)["notes"][0]


def test_one_model_is_in_memory_at_a_time(tmp_path, monkeypatch):
    folder, alive, most = spoken.save("llama", tmp_path / "model"), [], []

    def counted(checkpoint, device="cpu"):
        gc.collect()
        most.append(sum(reference() is not None for reference in alive))
        model = load_model(checkpoint, device)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(before_after, "load_model", counted)
    evaluator = before_after.Evaluator(open_checkpoint(folder))
    first, second = evaluator(folder), evaluator(folder)
    assert most == [0, 0, 0]  # dense once, pruned twice, each alone
    assert first.perplexity_before == first.perplexity_after == second.perplexity_after
    assert second.latency_before is first.latency_before
