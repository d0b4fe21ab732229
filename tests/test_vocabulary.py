"""Tokenizers with fewer pieces: text that used what stays is cut as before, and all other text still reads the same."""

import json

import lettered
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lettered import KINDS, counts, reduced, texts, whole, written

from compress.errors import BudgetError, InputError
from compress.recipe.vocabulary import PruneVocab
from compress.steps.vocabulary.choose import Choice
from compress.tokenizer.beside import changed_files, tokenizer_file
from compress.tokenizer.byte_pairs import BytePairs
from compress.tokenizer.file import TokenizerFile
from compress.tokenizer.named import Named, implied

CORPUS = texts()[:25]


@pytest.mark.parametrize("kind", KINDS)
def test_text_that_was_counted_has_the_very_same_pieces(kind, tmp_path):
    old = whole(written(kind))
    before, after, new = reduced(kind, tmp_path, counts(old, CORPUS), remove="unused")
    assert len(new) == after.get_vocab_size() < before.get_vocab_size()
    assert {new[number]: token for token, number in before.get_vocab().items() if number in new} == {
        number: token for token, number in after.get_vocab().items()
    }
    for text in CORPUS:
        assert [new[number] for number in before.encode(text).ids] == after.encode(text).ids


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(text=st.text(max_size=30) | st.sampled_from(texts()), seed=st.integers(0, 3), share=st.sampled_from([0.2, 0.4]))
def test_any_text_reads_as_before_whatever_goes(kind, tmp_path_factory, text, seed, share):
    before, after, new = made(kind, tmp_path_factory, seed, share)
    ids = before.encode(text).ids
    again = after.encode(text).ids
    for special in (True, False):
        assert after.decode(again, skip_special_tokens=special) == before.decode(ids, skip_special_tokens=special)
    if all(number in new for number in ids):
        assert again == [new[number] for number in ids]


MADE = {}


def made(kind, factory, seed, share):
    """With tokens used at random."""
    if (kind, seed, share) not in MADE:
        used = np.random.default_rng(seed).integers(0, 50, whole(written(kind)).get_vocab_size())
        try:
            MADE[kind, seed, share] = reduced(kind, factory.mktemp("tokenizer"), used, remove=share)
        except BudgetError:
            MADE[kind, seed, share] = reduced(kind, factory.mktemp("tokenizer"), used, remove=0.1)
    return MADE[kind, seed, share]


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_a_budget_takes_the_least_used_token_that_is_no_part_again_and_again(kind, tmp_path):
    (tmp_path / "tokenizer.json").write_text(written(kind), encoding="utf-8")
    file = TokenizerFile(tmp_path / "tokenizer.json")
    used = counts(whole(written(kind)), CORPUS)
    choice = Choice(file, used, ())
    parts = {
        number: [file.ids[part] for part in file.pieces.parts(piece)]
        for piece, number in file.pieces.ids.items()
        if number not in file.added.values()
    }
    live, uses = set(range(len(used))), used.copy()
    while len(live) > choice.needed.sum():
        mask = np.zeros(len(used), bool)
        mask[list(live)] = True
        kept = choice.kept(PruneVocab(prune="vocab", keep={"tokens": len(live)})) if len(live) < len(used) else mask
        assert inherited(kept, used, parts) == inherited(mask, used, parts)
        open_ = live - {part for number in live for part in parts.get(number, ())} - set(np.flatnonzero(choice.needed))
        least = min(open_, key=lambda number: uses[number])
        live.remove(least)
        for part in parts.get(least, ()):
            uses[part] += uses[least]


def inherited(mask, used, parts):
    """How many tokens the text has when those outside of the mask are spelled by their parts, or two bytes."""

    def spelled(number):
        return 1 if mask[number] else sum(map(spelled, parts[number])) if parts[number] else 2

    return sum(int(count) * spelled(number) for number, count in enumerate(used))


def test_a_piece_that_several_merges_give_has_the_parts_that_merging_gives_it():
    vocab = {piece: number for number, piece in enumerate(["a", "b", "c", "ab", "bc", "abc"])}
    spec = {"vocab": vocab, "merges": [["b", "c"], ["a", "b"], ["ab", "c"], ["a", "bc"]]}
    pieces = BytePairs(spec, by_bytes=True)
    assert pieces.parts("abc") == ("a", "bc") and pieces.parts("a") == ()
    unreached = BytePairs({**spec, "merges": [["b", "c"], ["ab", "c"], ["a", "b"]]}, by_bytes=True)
    assert not unreached.reached("abc") and unreached.reached("ab")


def test_a_piece_that_several_merges_give_must_stay_with_the_parts_it_has(tmp_path):
    (tmp_path / "tokenizer.json").write_text(written("byte_fallback"), encoding="utf-8")
    file = TokenizerFile(tmp_path / "tokenizer.json")
    piece = next(piece for piece in file.pieces.ids if len(piece) > 3 and file.pieces.parts(piece))
    gone = file.pieces.ids[file.pieces.parts(piece)[0]]
    new = {number: number for number in file.ids.values() if number != gone}
    with pytest.raises(InputError, match="cannot be merged, as a part of it goes"):
        file.renumbered(new)
    with pytest.raises(InputError, match="'</s>' cannot go"):
        file.renumbered({number: number for number in file.ids.values() if number != 2})


@pytest.mark.parametrize("kind", KINDS)
def test_budgets_are_met_or_say_what_can_be(kind, tmp_path):
    (tmp_path / "tokenizer.json").write_text(written(kind), encoding="utf-8")
    file = TokenizerFile(tmp_path / "tokenizer.json")
    rows = len(file.ids) + 7  # a padded embedding: rows without a token
    used = np.append(counts(whole(written(kind)), CORPUS), np.zeros(7, np.int64))
    choice = Choice(file, used, {rows - 1})
    assert choice.needed[rows - 1]
    unused = choice.kept(PruneVocab(prune="vocab", remove="unused"))
    assert unused[used > 0].all() and (unused | (used == 0)).all()
    rounded = choice.kept(PruneVocab(prune="vocab", remove="unused", round=8)).sum()
    assert rounded % 8 == 0 and 0 <= rounded - unused.sum() < 8
    share = choice.kept(PruneVocab(prune="vocab", remove=0.1, round=2))
    assert share.sum() == int(0.9 * rows) // 2 * 2
    least = int(choice.needed.sum())
    assert choice.kept(PruneVocab(prune="vocab", keep={"tokens": least})).sum() == least
    with pytest.raises(BudgetError, match=f"{least} tokens must stay .* the nearest is `keep: {{tokens: {least}}}`"):
        choice.kept(PruneVocab(prune="vocab", keep={"tokens": least - 1}))
    with pytest.raises(BudgetError, match="so none goes"):
        choice.kept(PruneVocab(prune="vocab", keep={"tokens": rows}))
    with pytest.raises(BudgetError, match="so none goes"):
        Choice(file, np.ones(rows, np.int64), ()).kept(PruneVocab(prune="vocab", remove="unused"))


def test_ids_in_configs_are_found_at_any_depth_and_renumbered():
    config = {
        "eos_token_id": [2, 3],
        "bos_token_id": None,
        "pad_token_id": -1,
        "image_token_index": 5,
        "num_hidden_layers": 4,
        "max_new_tokens": 20,
        "mm_tokens_per_image": 256,
        "suppress_tokens": [7, 9],
        "bad_words_ids": [[2, 3], [7], [8, 9]],
        "sequence_bias": [[[2], -1.0], [[7, 2], 3.0]],
        "forced_decoder_ids": [[1, 4], [2, None]],
        "lang_to_id": {"<|en|>": 6},
        "text_config": {"vocab_size": 10, "eos_token_id": 3, "deep": [{"sep_token_id": 4}]},
        "audio_config": {"vocab_size": 99, "pad_token_id": 50},
        "strange_token": 3,
    }
    named = Named("config.json", 10).read(config)
    assert named.ids == {2, 3, 4, 5, 6}
    assert named.foreign == ["audio_config"] and named.unsure == ["strange_token"]
    new = {2: 0, 3: 1, 4: 2, 5: 3, 6: 4, 8: 5, 9: 6}
    assert Named("config.json", 10).renumbered(config, new) == {
        **config,
        "eos_token_id": [0, 1],
        "image_token_index": 3,
        "suppress_tokens": [6],
        "bad_words_ids": [[0, 1], [5, 6]],
        "sequence_bias": [[[0], -1.0]],
        "forced_decoder_ids": [[1, 2], [2, None]],
        "lang_to_id": {"<|en|>": 4},
        "text_config": {"vocab_size": 10, "eos_token_id": 1, "deep": [{"sep_token_id": 2}]},
    }
    for wrong, said in (({"eos_token_id": 10}, "eos_token_id is 10, and the model has tokens 0 to 9"),
                        ({"a": {"bos_token_id": "x"}}, "a.bos_token_id is 'x', which is no token's id")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            Named("config.json", 10).read(wrong)
    full = {"pad_token_id": 1, "bos_token_id": None, "text_config": {"eos_token_id": 2, "vocab_size": 10}}
    assert implied(full, {"text_config": {}}) == {"text_config": {"eos_token_id": 2}, "pad_token_id": 1}


def test_every_file_that_numbers_tokens_is_written_anew_or_left_out(tmp_path):
    old = written("byte_level")
    file, ids = json.loads(old), whole(old).get_vocab()
    files = {
        "tokenizer.json": old,
        "tokenizer_config.json": json.dumps(
            {
                "added_tokens_decoder": {str(ids[token]): {"content": token} for token in lettered.SPECIAL},
                "pad_token_id": 0,
            }
        ),
        "vocab.json": json.dumps(file["model"]["vocab"]),
        "merges.txt": "#version: 0.2\n" + "".join(f"{one} {other}\n" for one, other in file["model"]["merges"]),
        "added_tokens.json": json.dumps({"<mask>": 4}),
        "vocab.txt": "".join(f"{token}\n" for token in sorted(ids, key=ids.__getitem__)),
        "generation_config.json": json.dumps({"eos_token_id": 2, "suppress_tokens": [599]}),
        "tokenizer.model": "sentencepiece",
        "README.md": "words",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    paths = [tmp_path / name for name in files]
    found = tokenizer_file(tmp_path, paths)
    gone = {599} | {ids[piece] for piece in found.pieces.ids if len(piece) > 6} - found.fixed()
    kept = sorted(
        number
        for piece, number in ids.items()
        if number not in gone and not gone.intersection(ids[part] for part in _inside(found, piece))
    )
    new = {number: place for place, number in enumerate(kept)}
    changed = changed_files(tmp_path, paths, found, new, len(ids))
    assert changed.pop("tokenizer.model") is None and "README.md" not in changed
    after = whole(changed["tokenizer.json"])
    assert after.get_vocab() == {token: new[number] for token, number in ids.items() if number in new}
    assert json.loads(changed["vocab.json"]) == after.get_vocab()
    assert changed["vocab.txt"].split("\n")[:-1] == sorted(after.get_vocab(), key=after.get_vocab().__getitem__)
    merges = [f"{one} {other}" for one, other in json.loads(changed["tokenizer.json"])["model"]["merges"]]
    assert changed["merges.txt"].split("\n") == ["#version: 0.2", *merges, ""] and len(merges) < len(
        file["model"]["merges"]
    )
    assert json.loads(changed["added_tokens.json"]) == {"<mask>": new[4]}
    config = json.loads(changed["tokenizer_config.json"])
    assert config["added_tokens_decoder"] == {str(new[ids[t]]): {"content": t} for t in lettered.SPECIAL}
    assert json.loads(changed["generation_config.json"]) == {"eos_token_id": new[2], "suppress_tokens": []}

    for name, text, said in (
        ("vocab.json", json.dumps({"<pad>": 3}), "'<pad>' is 3, and .* calls it 0"),
        ("added_tokens.json", json.dumps({"<new>": 3}), "'<new>' is 3, and .* does not know it"),
        ("merges.txt", "a b\n", "its merges are not those of"),
        ("generation_config.json", "[", "not valid JSON"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=f"{name}.*{said}"):
            changed_files(tmp_path, [tmp_path / name], found, new, len(ids))


def _inside(file, piece):
    """What a piece is merged of, at any depth."""
    for part in file.pieces.parts(piece) if piece in file.pieces.ids else ():
        yield part
        yield from _inside(file, part)


def test_what_cannot_be_cut_is_refused_by_name(tmp_path):
    def refused(said, data=None, **others):
        for old in tmp_path.iterdir():
            old.unlink()
        for name, text in {**({"tokenizer.json": json.dumps(data)} if data is not None else {}), **others}.items():
            (tmp_path / name.replace("__", ".")).write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=said):
            tokenizer_file(tmp_path, sorted(tmp_path.iterdir())).fixed()

    data = json.loads(written("byte_level"))
    refused("no tokenizer, and pieces are taken out of a tokenizer.json; AutoTokenizer.*writes one")
    refused("only tokenizer.model, and pieces", tokenizer__model="sentencepiece")
    code = {"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}
    refused("auto_map: the tokenizer is code of the checkpoint's own", data, tokenizer_config__json=json.dumps(code))
    refused(
        "tokenizer.json: model.type is WordLevel: it cannot spell a word that goes",
        {**data, "model": {"type": "WordLevel"}},
    )
    refused("tokenizer.json: model.dropout is 0.1", {**data, "model": {**data["model"], "dropout": 0.1}})
    refused("post_processor.type is Strange", {**data, "post_processor": {"type": "Strange"}})
    refused("tokenizer.json: not a tokenizer's file", {"model": {"type": "BPE"}})
    twice = [{**data["added_tokens"][0], "id": 9}]
    refused("'<pad>' is 9 among added_tokens and 0 in the vocabulary", {**data, "added_tokens": twice})
