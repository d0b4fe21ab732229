"""`prune: vocab`: model, tokenizer and configs lose the same tokens; stock transformers sees no other difference."""

import json
import shutil

import lettered
import numpy as np
import pytest
import torch
import zoo
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from compress.checkpoint.open import open_checkpoint
from compress.errors import BudgetError, InputError, VerifyError
from compress.model.model import Model
from compress.pipeline import Options, apply, plan, run
from compress.recipe.read import parse_recipe
from compress.surgery.claims.vocabulary import SameOnKept
from compress.surgery.edit import Written

QUICK = Options(evaluate=False)
ROLES = {
    "word_pieces": dict(
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    ),
}
PLAIN = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def model(name, kind, folder, rows=None, **changes):
    """A model of the zoo with a tokenizer of the kind, and a text of which it needs half of the tokens."""
    backend = lettered.Tokenizer.from_str(lettered.written(kind))
    rows = rows or backend.get_vocab_size()
    zoo.save(name, folder, vocab_size=rows, **changes)
    PreTrainedTokenizerFast(tokenizer_object=backend, **ROLES.get(kind, PLAIN)).save_pretrained(folder)
    (folder.parent / "text.txt").write_text("\n\n".join(lettered.texts()[:25]), encoding="utf-8")
    return folder


def recipe(folder, *steps):
    return parse_recipe(f"calibrate: {{data: {folder.parent / 'text.txt'}}}\nsteps: [{', '.join(steps)}]")


UNUSED = "{prune: vocab, remove: unused, round: 8}"


def kept_of(out):
    made = json.loads((out / "plan.json").read_text())
    (kept,) = next(step for step in made["steps"] if step["kind"] == "prune-vocab")["decision"]["kept"].values()
    return kept


@pytest.mark.parametrize(
    ("name", "kind", "changes"),
    [
        ("llama", "byte_level", {"tie_word_embeddings": True, "eos_token_id": 2}),
        ("llama", "byte_fallback", {"tie_word_embeddings": False, "pad_token_id": 0}),
        ("bert", "word_pieces", {}),
        ("bert_encoder", "word_pieces", {}),
        ("roberta", "byte_level", {"pad_token_id": 0}),
        ("t5", "unigram", {"decoder_start_token_id": 0}),
    ],
)
def test_stock_transformers_gives_the_dense_logits_of_the_tokens_that_stay(name, kind, changes, tmp_path):
    dense = model(name, kind, tmp_path / "in", **changes)
    out = tmp_path / "out"
    run(recipe(dense, UNUSED), dense, out, QUICK)
    kept = kept_of(out)
    assert len(kept) % 8 == 0 and len(kept) == json.loads((out / "config.json").read_text())["vocab_size"]
    assert len(kept) < 0.9 * zoo.stock(name, dense).config.vocab_size
    old, new = AutoTokenizer.from_pretrained(dense), AutoTokenizer.from_pretrained(out)
    number = {was: now for now, was in enumerate(kept)}
    for text in lettered.texts()[:10]:
        assert new(text)["input_ids"] == [number[one] for one in old(text)["input_ids"]]
    before, after = zoo.stock(name, dense), zoo.stock(name, out)
    ids = torch.randint(0, len(kept), (2, 11), generator=torch.Generator().manual_seed(3))
    ids[ids == number.get(before.config.pad_token_id, -1)] = 5
    more = {"decoder_input_ids": ids.flip(1)} if name == "t5" else {}
    was = torch.tensor(kept)
    with torch.no_grad():
        wanted = before(was[ids], **{key: was[value] for key, value in more.items()})
        found = after(ids, **more)
    if "logits" in found:
        torch.testing.assert_close(found.logits, wanted.logits[..., was], atol=1e-5, rtol=1e-5)
    else:
        torch.testing.assert_close(found.last_hidden_state, wanted.last_hidden_state, atol=1e-5, rtol=1e-5)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
        one, other = getattr(before.config, key, None), getattr(after.config, key, None)
        assert other == (number[one] if one is not None and one >= 0 else one), key
    report = json.loads((out / "report.json").read_text())
    rows = before.config.vocab_size - len(kept)
    tied = before.get_output_embeddings() is None or changes.get("tie_word_embeddings", True)
    gone = report["before"]["params"] - report["after"]["params"]
    assert gone >= rows * before.get_input_embeddings().embedding_dim * (1 if tied else 2)
    (family,) = [one for one in report["families"] if one["kind"] == "vocab"]
    assert (family["size"], family["kept"]) == (before.config.vocab_size, len(kept))
    assert "texts read as before" in " ".join(report["notes"])


def test_ids_that_a_config_has_by_its_class_alone_are_written_out(tmp_path):
    """BERT's padding is 0 whether config.json says so or not; the tokenizer has another token there."""
    dense = model("bert", "word_pieces", tmp_path / "in")
    raw = json.loads((dense / "config.json").read_text())
    raw.pop("pad_token_id", None)
    (dense / "config.json").write_text(json.dumps(raw))
    out = tmp_path / "out"
    run(recipe(dense, UNUSED), dense, out, QUICK)
    assert zoo.stock("bert", out).config.pad_token_id == kept_of(out).index(0)


def test_with_other_steps_before_and_after_and_by_plan(tmp_path):
    dense = model("llama", "byte_level", tmp_path / "in", rows=616)
    other = "{prune: channels, by: magnitude, remove: 25%}"
    both = recipe(dense, other, "{prune: vocab, remove: 20%, round: 16}", "{prune: heads, by: magnitude, remove: 50%}")
    run(both, dense, tmp_path / "out", QUICK)
    made = plan(both, dense, QUICK)
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


def test_a_model_that_does_not_give_the_logits_or_the_text_is_refused(tmp_path):
    dense = model("llama", "byte_level", tmp_path / "in")
    run(recipe(dense, UNUSED), dense, tmp_path / "out", QUICK)
    source, kept = Model.of(open_checkpoint(dense)), np.zeros(600, bool)
    kept[kept_of(tmp_path / "out")] = True
    claim = SameOnKept("vocab", kept, lambda: lettered.texts()[:10])

    def prove(change):
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "out", tmp_path / "bad")
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
