"""What models write before and after, and their loss by position, against loops written out here."""

from __future__ import annotations

import json

import pytest
import spoken
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from compress import cli
from compress.checkpoint.open import open_checkpoint
from compress.evaluate.continuations import PROMPTS, continued, writes
from compress.evaluate.load import load_model
from compress.evaluate.read import quality_of

RECIPE = "steps:\n- {prune: channels, by: magnitude, remove: 50%}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return spoken.save("llama", tmp_path_factory.mktemp("spoken") / "in", initializer_range=0.3)


def by_hand(folder, prompt, count):
    """The most probable token, `count` times, without a cache; ends where the tokenizer's text ends."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    start = ids = tokenizer(prompt)["input_ids"]
    for _ in range(count):
        with torch.no_grad():
            ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
        if ids[-1] == model.generation_config.eos_token_id:
            break
    return tokenizer.decode(ids[len(start) :], skip_special_tokens=True)


@pytest.mark.slow
def test_a_report_shows_what_both_models_write(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "r.yaml").write_text(RECIPE)
    out = tmp_path / "out"
    assert cli.call([str(tmp_path / "r.yaml"), str(folder), str(out)]) == 0, capsys.readouterr().err
    report = json.loads((out / "report.json").read_text())
    wanted = [{"prompt": one, "before": by_hand(folder, one, 24), "after": by_hand(out, one, 24)} for one in PROMPTS]
    assert report["generated"] == wanted and any(one["before"] != one["after"] for one in wanted)
    firsts = [first for first, _ in report["before"]["perplexity"]["by_position"]]
    assert firsts == [1, 2, 4, 8, 16, 32, 64, 128]


def test_a_prompt_that_the_model_has_no_tokens_for_is_continued_by_nothing(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["unheard"])
    model = load_model(open_checkpoint(folder))
    assert writes(model) and continued(model, tokenizer, ["unheard", ""], tokens=2) == ["", ""]


def test_loss_by_position_is_the_mean_over_each_stretch(folder):
    model = load_model(open_checkpoint(folder))
    ids = torch.randint(0, 400, (6, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        each = cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(
            6, 11
        )
    found = quality_of(model, [{"input_ids": ids[:4]}, {"input_ids": ids[4:, :8]}]).record["perplexity"]["by_position"]
    short = torch.full((6, 11), True)
    short[4:, 7:] = False  # the last two have eight tokens
    for (first, loss), (start, end) in zip(found, [(0, 1), (1, 3), (3, 7), (7, 11)], strict=True):
        assert first == start + 1
        assert loss == pytest.approx(each[:, start:end][short[:, start:end]].mean().item(), rel=1e-4)
