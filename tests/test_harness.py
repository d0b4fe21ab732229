"""lm-eval without a network: the tasks that ship, before and after pruning, against sums done by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import spoken
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from compress import cli
from compress.evaluate.harness import SHIPPED, Harness

pytest.importorskip("lm_eval")
LIMIT = 24


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    """A dense model and one with half its channels gone."""
    place = tmp_path_factory.mktemp("harness")
    dense = spoken.save("llama", place / "dense")
    (place / "r.yaml").write_text("steps:\n- {prune: channels, by: magnitude, remove: 50%}\n")
    assert cli.call([str(place / "r.yaml"), str(dense), str(place / "pruned"), "--no-evaluate", "-q"]) == 0
    return dense, place / "pruned"


@pytest.fixture(autouse=True)
def cache(harvested, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(harvested))


def by_hand(folder: Path) -> float:
    """Accuracy on docs_order: the answer with the greatest sum of log-probabilities, one at a time, no batches."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    right = 0
    questions = [json.loads(line) for line in (SHIPPED / "order.jsonl").read_text().splitlines()[:LIMIT]]
    for question in questions:
        sums = []
        for choice in question["choices"]:
            context = tokenizer(question["context"])["input_ids"]
            whole = tokenizer(f"{question['context']} {choice}")["input_ids"]
            with torch.no_grad():
                chances = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            sums.append(sum(chances[i - 1, whole[i]].item() for i in range(len(context), len(whole))))
        right += max(range(4), key=sums.__getitem__) == question["gold"]
    return right / LIMIT


@pytest.mark.slow
def test_before_and_after_pruning(models, capsys):
    dense, pruned = models
    arguments = ["--against", str(dense), "--tasks", "docs_order,docs_word", "--limit", str(LIMIT), "--samples", "4"]
    capsys.readouterr()
    assert cli.call(["eval", str(pruned), *arguments, "--length", "64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for side, folder in ((found, pruned), (found["against"], dense)):
        order, word = side["tasks"]
        assert (order["task"], order["metric"], order["samples"]) == ("docs_order", "acc", LIMIT)
        assert order["value"] == pytest.approx(by_hand(folder))
        assert (word["task"], word["metric"], word["samples"]) == ("docs_word", "exact_match", LIMIT)
    assert found["parameters"] < found["against"]["parameters"]
    assert found["perplexity"]["value"] != found["against"]["perplexity"]["value"]


@pytest.mark.slow
def test_scores_go_into_the_card(models, capsys):
    from huggingface_hub import ModelCard

    quick = ["--limit", "4", "--samples", "4", "--length", "32", "--card", "--json"]
    for tasks in ("docs_order", "docs_order,docs_word"):  # the second time replaces the first's score
        capsys.readouterr()
        assert cli.call(["eval", str(models[1]), "--tasks", tasks, *quick]) == 0
    scores = json.loads(capsys.readouterr().out)["tasks"]
    card = ModelCard.load(models[1] / "README.md")
    data: Any = card.data
    found = {(one.dataset_type, one.metric_type): one.metric_value for one in data.eval_results}
    assert found == {(one["task"], one["metric"]): pytest.approx(one["value"], abs=1e-4) for one in scores}
    assert "# dense, pruned" in card.text and "pruned" in data.tags
    assert cli.call(["eval", str(models[0]), "--tasks", "docs_order", *quick]) == 2
    assert "README.md" in capsys.readouterr().err


@pytest.mark.slow
def test_the_next_word_is_read_off_what_a_model_writes(models, monkeypatch):
    """A model that writes every answer, with more behind it, is always right."""
    from lm_eval.models.huggingface import HFLM

    answers = {row["context"]: row["word"] for row in map(json.loads, (SHIPPED / "word.jsonl").open())}
    monkeypatch.setattr(
        HFLM, "generate_until", lambda self, requests, **_: [f" {answers[r.args[0]]}, and so" for r in requests]
    )
    model, tokenizer = AutoModelForCausalLM.from_pretrained(models[0]), AutoTokenizer.from_pretrained(models[0])
    [score] = Harness(["docs_word"]).run(model, tokenizer, limit=LIMIT)
    assert score.value == 1


def test_questions_that_ship_are_whole():
    for line in (SHIPPED / "order.jsonl").read_text().splitlines():
        question = json.loads(line)
        assert len(set(question["choices"])) == 4
        assert len({tuple(sorted(choice.split())) for choice in question["choices"]}) == 1
    for line in (SHIPPED / "word.jsonl").read_text().splitlines():
        question = json.loads(line)
        assert question["word"].isalpha() and not question["context"].endswith(" ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tasks", "docs_oder"], ("'docs_oder'", "did you mean 'docs_order'?")),
        (["--tasks", "docs_order", "--task-folder", "nowhere"], ("nowhere", "no folder")),
        (["--data", "dcs"], ("dcs", "did you mean 'docs'?")),
        (["--limit", "0"], ("--limit 0", "at least 1")),
    ],
)
def test_mistakes(arguments, words, models, capsys):
    assert cli.call(["eval", str(models[0]), *arguments]) == 2
    said = capsys.readouterr()
    assert all(word in said.err for word in words)
    assert said.out == ""


@pytest.mark.slow
def test_own_tasks(models, tmp_path, capsys):
    (tmp_path / "own.yaml").write_text((SHIPPED / "docs_order.yaml").read_text().replace("docs_order", "own"))
    for name in ("questions.py", "order.jsonl"):
        (tmp_path / name).write_text((SHIPPED / name).read_text())
    given = ["--tasks", "own", "--task-folder", str(tmp_path), "--limit", "4", "--samples", "4", "--length", "32"]
    assert cli.call(["eval", str(models[0]), *given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"][0]["task"] == "own"


def test_an_encoder_answers_no_tasks(tmp_path, capsys):
    folder = spoken.save("bert_encoder", tmp_path / "encoder")
    assert cli.call(["eval", str(folder), "--tasks", "docs_word", "--samples", "4", "--length", "32"]) == 2
    assert "generates no text" in capsys.readouterr().err
