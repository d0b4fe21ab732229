"""`prune: vocab`: model, tokenizer and configs lose the same tokens; stock transformers sees no other difference."""

import json
import shutil
from dataclasses import replace

import lettered
import numpy as np
import pytest
import torch
import zoo
from lettered import model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from compress import pipeline
from compress.checkpoint.open import open_checkpoint
from compress.errors import BudgetError, InputError, VerifyError
from compress.evaluate.continuations import PROMPTS
from compress.evaluate.folder import Questions, evaluate_folder
from compress.execution.document import read_plan
from compress.files import shipped
from compress.model.model import Model
from compress.pipeline import Options, apply, run
from compress.recipe.read import parse_recipe, read_recipe
from compress.surgery.claims.vocabulary import SameOnKept
from compress.surgery.edit import Written

QUICK = Options(evaluate=False)
UNUSED = "{prune: vocab, remove: unused, round: 8}"


def recipe(folder, *steps):
    return parse_recipe(f"calibrate: {{data: {folder.parent / 'text.txt'}}}\nsteps: [{', '.join(steps)}]")


def kept_of(out):
    made = json.loads((out / "plan.json").read_text())
    (kept,) = next(step for step in made["steps"] if step["kind"] == "prune-vocab")["decision"]["kept"].values()
    return kept


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A Llama and the same without tokens that its text does not use, both measured."""
    place = tmp_path_factory.mktemp("evaluated")
    changes = {"max_position_embeddings": 512, "initializer_range": 0.3, "tie_word_embeddings": True}
    dense = model("llama", "byte_level", place / "in", **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compress.evaluate.before_after.SAMPLES", 4)
        run(recipe(dense, UNUSED), dense, place / "out", Options(latency=False))
    return dense, place / "out"


def test_a_tied_embedding_loses_the_tokens_that_its_text_does_not_use(evaluated):
    check("llama", *evaluated, tables=1)


@pytest.mark.parametrize(
    ("name", "kind", "changes"),
    [
        ("llama", "byte_fallback", {"tie_word_embeddings": False, "pad_token_id": 0}),
        ("bert", "word_pieces", {}),
        pytest.param("t5", "unigram", {"decoder_start_token_id": 0}, marks=pytest.mark.slow),
    ],
)
def test_stock_transformers_gives_the_dense_logits_of_the_tokens_that_stay(name, kind, changes, tmp_path):
    dense = model(name, kind, tmp_path / "in", **changes)
    if name == "bert":  # whose padding is 0 by its class, whether config.json says so or not
        raw = json.loads((dense / "config.json").read_text())
        raw.pop("pad_token_id", None)
        (dense / "config.json").write_text(json.dumps(raw))
    run(recipe(dense, UNUSED), dense, tmp_path / "out", QUICK)
    check(name, dense, tmp_path / "out", tables=2 if name == "llama" else 1)


def check(name, dense, out, tables):
    """Configs, tokenizers and logits of both; `tables`: how many matrices have a row for each token."""
    kept = kept_of(out)
    assert len(kept) % 8 == 0 and len(kept) == json.loads((out / "config.json").read_text())["vocab_size"]
    before, after = zoo.stock(name, dense), zoo.stock(name, out)
    assert len(kept) < 0.9 * before.config.vocab_size
    old, new = AutoTokenizer.from_pretrained(dense), AutoTokenizer.from_pretrained(out)
    number = {was: now for now, was in enumerate(kept)}
    for text in lettered.texts()[:10]:
        assert new(text)["input_ids"] == [number[one] for one in old(text)["input_ids"]]
    ids = torch.randint(0, len(kept), (2, 11), generator=torch.Generator().manual_seed(3))
    ids[ids == number.get(before.config.pad_token_id, -1)] = 5
    more = {"decoder_input_ids": ids.flip(1)} if name == "t5" else {}
    was = torch.tensor(kept)
    with torch.no_grad():
        wanted = before(was[ids], **{key: was[value] for key, value in more.items()}).logits[..., was]
        torch.testing.assert_close(after(ids, **more).logits, wanted, atol=1e-4, rtol=1e-5)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
        one, other = getattr(before.config, key, None), getattr(after.config, key, None)
        assert other == (number[one] if one is not None and one >= 0 else one), key
    report = json.loads((out / "report.json").read_text())
    gone = report["before"]["params"] - report["after"]["params"]
    bias = name == "bert"
    rows = before.config.vocab_size - len(kept)
    assert gone == rows * (tables * before.get_input_embeddings().embedding_dim + bias)
    (family,) = [one for one in report["families"] if one["kind"] == "vocab"]
    assert (family["size"], family["kept"]) == (before.config.vocab_size, len(kept))
    assert "texts read as before" in " ".join(report["notes"])


@pytest.mark.slow
def test_with_other_steps_before_and_after_and_by_plan(tmp_path):
    dense = model("llama", "byte_level", tmp_path / "in", rows=616, num_hidden_layers=1)
    after = "{prune: channels, by: magnitude, remove: 25%}"
    both = recipe(
        dense, "{prune: weights, by: magnitude, remove: 10%}", "{prune: vocab, remove: 20%, round: 16}", after
    )
    run(both, dense, tmp_path / "out", QUICK)
    made = read_plan(tmp_path / "out/plan.json")
    apply(made, dense, tmp_path / "applied", QUICK)
    assert len(kept_of(tmp_path / "out")) == 480
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "applied" / file).read_bytes()
    assert zoo.stock("llama", tmp_path / "out").config.intermediate_size == 36
    (dense / "tokenizer.json").write_text(
        (dense / "tokenizer.json").read_text().replace('"lstrip": false', '"lstrip": true')
    )
    with pytest.raises(InputError, match=r"tokenizer.json: not the tokenizer of the plan; plan anew"):
        apply(made, dense, tmp_path / "never", QUICK)
    assert not (tmp_path / "never").exists()


def test_an_interrupted_run_goes_on_behind_it(tmp_path, monkeypatch):
    dense = model("llama", "byte_level", tmp_path / "in")
    made = recipe(dense, UNUSED, "{prune: channels, by: magnitude, remove: 25%}")
    run(made, dense, tmp_path / "whole", QUICK)
    real = pipeline.execute

    def interrupted(work, *rest):
        if work.steps:
            raise KeyboardInterrupt
        return real(work, *rest)

    monkeypatch.setattr(pipeline, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(made, dense, tmp_path / "out", QUICK)
    monkeypatch.setattr(pipeline, "execute", lambda work, *rest: real(work, *rest) if work.steps else pytest.fail())
    run(made, dense, tmp_path / "out", replace(QUICK, resume=True))
    for name in ("model.safetensors", "tokenizer.json", "plan.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_model_that_does_not_give_the_logits_or_the_text_is_refused(evaluated, tmp_path):
    dense, out = evaluated
    source, kept = Model.of(open_checkpoint(dense)), np.zeros(600, bool)
    kept[kept_of(out)] = True
    claim = SameOnKept("vocab", kept, lambda: lettered.texts()[:10])

    def prove(change):
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(out, tmp_path / "bad")
        change(tmp_path / "bad")
        return claim.prove(source, Written(tmp_path / "bad", open_checkpoint(tmp_path / "bad")))

    assert "no power" not in prove(lambda folder: None)

    def rolled(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].roll(1, 0)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    def rope(folder):
        config = json.loads((folder / "config.json").read_text())
        config["rope_parameters"]["rope_theta"] = 5.0
        (folder / "config.json").write_text(json.dumps(config))

    def swapped(folder):
        data = json.loads((folder / "tokenizer.json").read_text())
        names = sorted(data["model"]["vocab"], key=data["model"]["vocab"].__getitem__)
        one, other = names[-1], names[-2]
        vocab = data["model"]["vocab"]
        vocab[one], vocab[other] = vocab[other], vocab[one]
        (folder / "tokenizer.json").write_text(json.dumps(data))

    for change, said in (
        (rolled, "not the kept part"),
        (rope, "the output differs"),
        (swapped, "cut into other tokens"),
    ):
        with pytest.raises(VerifyError, match=said):
            prove(change)


def test_the_recipe_that_ships_prunes_the_vocabulary_by_the_text_of_its_user(tmp_path):
    found = read_recipe("vocab", [f"calibrate.data={tmp_path}"])
    assert "vocab" in shipped.names() and found.calibrate.data == str(tmp_path)
    (step,) = found.steps
    assert (step.prune, step.remove, step.round) == ("vocab", "unused", 64)
    assert parse_recipe(found.dump()) == found


def test_what_is_refused_leaves_nothing(tmp_path):
    dense = model("llama", "byte_level", tmp_path / "in")
    out = tmp_path / "out"

    def refused(error, said, step=UNUSED, data=None):
        made = recipe(dense, step)
        if data is not None:
            made = parse_recipe(f"calibrate: {{data: {data}}}\nsteps: [{step}]")
        with pytest.raises(error, match=said):
            run(made, dense, out, QUICK)
        assert not out.exists()

    refused(InputError, "random gives tokens, whose use says nothing", data="random")
    refused(BudgetError, "steps.0: keep: tokens: 9: .* tokens must stay", "{prune: vocab, keep: {tokens: 9}}")
    config = json.loads((dense / "generation_config.json").read_text())
    (dense / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": 600}))
    refused(InputError, "generation_config.json: eos_token_id is 600, and the model has tokens 0 to 599")
    (dense / "generation_config.json").write_text(json.dumps(config))
    (dense / "tokenizer.json").unlink()
    (dense / "tokenizer_config.json").unlink()
    refused(InputError, "no tokenizer, and pieces are taken out of a tokenizer.json")
    for step, said in (
        ("{prune: vocab}", "no budget"),
        ("{prune: vocab, remove: 10%, keep: {tokens: 3}}", "a step has one budget"),
        ("{prune: vocab, remove: unsed}", "write a share as 20% or 0.2 or `unused`"),
        ("{prune: [vocab, heads], by: magnitude, remove: 10%}", "the vocabulary is a step of its own"),
    ):
        with pytest.raises(InputError, match=said):
            recipe(dense, step)


def test_the_report_compares_per_byte_and_shows_what_each_writes_in_its_own_tokens(evaluated):
    dense, out = evaluated
    report = json.loads((out / "report.json").read_text())
    first, second = report["quality"]["figures"]
    assert first["over"].endswith("× 256 tokens of the dense model") and second["title"] == "Bits a byte"
    assert report["changes"].keys() >= {"perplexity", "bits_per_byte"}
    for side, folder in (("before", dense), ("after", out)):
        tokenizer, stock = AutoTokenizer.from_pretrained(folder), zoo.stock("llama", folder)
        ids = torch.tensor([tokenizer(PROMPTS[0])["input_ids"]])
        made = stock.generate(ids, max_new_tokens=24, do_sample=False, pad_token_id=0)
        assert report["generated"][0][side] == tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    against = evaluate_folder(open_checkpoint(out), Questions(samples=4, length=64), open_checkpoint(dense))
    assert against["quality"][0]["over"] == "4 × 64 tokens of this model"
    assert set(against["changes"]) == {"perplexity", "bits_per_byte"}
    one, other = report["quality"]["figures"][1], against["quality"][1]
    assert other["value"] / other["dense"] == pytest.approx(one["value"] / one["dense"], rel=0.05)
