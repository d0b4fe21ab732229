"""Calibration text and the batches made of it."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, LlamaConfig, PreTrainedTokenizerFast, T5Config

import compress.data.sources.docs as docs_module
from compress.data.tokens import texts
from compress.errors import InputError
from compress.inputs.text import batches
from compress.recipe.part import Part
from compress.recipe.schema import Calibrate

WORDS = "the model reads text and text is made of words that a tokenizer knows".split()  # noqa: SIM905
SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture
def tokenizer():
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *dict.fromkeys(WORDS)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore
    backend.post_processor = processors.TemplateProcessing(  # pyright: ignore
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(" ".join(WORDS[i % 5 :]) for i in range(60)))
    return tmp_path


def wish(folder, **changes):
    return Calibrate(**{"data": str(folder), "samples": 5, "length": 12, "batch": 2, **changes})


def test_sequences_are_full_and_have_their_special_tokens(folder, tokenizer):
    found, key = batches(wish(folder), tokenizer, LlamaConfig(vocab_size=50), 0)
    assert [len(batch["input_ids"]) for batch in found] == [2, 2, 1]
    rows = torch.cat([batch["input_ids"] for batch in found])
    assert rows.shape == (5, 12) and rows.dtype == torch.int64
    assert (rows[:, 0] == 1).all() and (rows[:, -1] == 2).all() and (rows[:, 1:-1] > 3).all()
    again, same = batches(wish(folder, batch=5), tokenizer, LlamaConfig(vocab_size=50), 0)
    assert torch.equal(again[0]["input_ids"], rows) and same == key
    assert batches(wish(folder), tokenizer, LlamaConfig(vocab_size=50), 1)[1] != key


def test_encoder_decoders_continue_the_text(folder, tokenizer):
    [batch], _ = batches(wish(folder, batch=8), tokenizer, T5Config(vocab_size=50, pad_token_id=0), 0)
    assert {name: value.shape for name, value in batch.items()} == dict.fromkeys(
        ("input_ids", "decoder_input_ids", "labels"), (5, 12)
    )
    assert (batch["decoder_input_ids"][:, 0] == 0).all()
    assert torch.equal(batch["decoder_input_ids"][:, 1:], batch["labels"][:, :-1])


def test_masked_models_guess_some_tokens(folder, tokenizer):
    config = BertConfig(vocab_size=50, architectures=["BertForMaskedLM"])
    [batch], _ = batches(wish(folder, batch=8), tokenizer, config, 0)
    plain, _ = batches(wish(folder, batch=8), tokenizer, LlamaConfig(vocab_size=50), 0)
    hidden = batch["labels"] != -100
    assert (batch["input_ids"][hidden] == 3).all() and hidden.any(1).all() and hidden.float().mean() < 0.4
    assert torch.equal(torch.where(hidden, batch["labels"], batch["input_ids"]), plain[0]["input_ids"])


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "txt"])
def test_files(suffix, tmp_path):
    wanted = ["one text", "another text"]
    file = tmp_path / f"data.{suffix}"
    if suffix == "jsonl":
        file.write_text("".join(json.dumps({"body": text}) + "\n" for text in wanted))
    elif suffix == "json":
        file.write_text(json.dumps([{"body": text} for text in wanted]))
    elif suffix == "txt":
        file.write_text("one text\n\nanother text\n")
    else:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"body": wanted}), file)
    assert sorted(texts(Part("text", {"path": str(file), "field": "body"}))) == sorted(wanted)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "fine"}\n{"txt": 1}\n', r"data\.jsonl:2: no text under 'text'; there are txt"),
        ('{"text": "fine"}\n{broken\n', r"data\.jsonl:2: not valid JSON"),
    ],
)
def test_broken_lines_are_named(content, message, tmp_path):
    (tmp_path / "data.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        texts(str(tmp_path / "data.jsonl"))


def test_other_mistakes(folder, tokenizer):
    small = LlamaConfig(vocab_size=50, max_position_embeddings=8)
    with pytest.raises(InputError, match=r"calibrate\.length: 12 tokens are more than the model's 8 positions"):
        batches(wish(folder), tokenizer, small, 0)
    with pytest.raises(InputError, match=r"the text gives \d+ sequences of 12 tokens, calibrate\.samples asks for 999"):
        batches(wish(folder, samples=999), tokenizer, LlamaConfig(vocab_size=50), 0)
    with pytest.raises(InputError, match="do not belong together"):
        batches(wish(folder), tokenizer, LlamaConfig(vocab_size=6), 0)
    with pytest.raises(InputError, match="no tokenizer"):
        batches(wish(folder), None, LlamaConfig(vocab_size=50), 0)


def test_random_tokens_need_no_tokenizer():
    asked = Calibrate(data=Part("random"), samples=4, length=9)
    [batch], key = batches(asked, None, LlamaConfig(vocab_size=50), 0)
    assert batch["input_ids"].shape == (4, 9) and batch["input_ids"].max() < 50
    assert batches(asked, None, LlamaConfig(vocab_size=50), 0)[1] == key
    assert batches(asked, None, LlamaConfig(vocab_size=50), 1)[1] != key


DOCSTRING = """Compute the mean of all the values that are given to this function by its caller.

    >>> mean([1, 2])
    1.5

    Parameters
    ----------
    values : list of float
        The numbers whose mean is to be computed; an empty list is an error for this function.

    Args:
        start (`int`, *optional*): Where in the list the computation of the mean begins, counted
            from the first of the values.

    Uses :class:`~numpy.ndarray` internally, which is described in the documentation of that package.
"""


def test_docstrings_become_prose():
    assert list(docs_module.paragraphs(DOCSTRING)) == [
        "Compute the mean of all the values that are given to this function by its caller.",
        "The numbers whose mean is to be computed; an empty list is an error for this function.",
        "Where in the list the computation of the mean begins, counted from the first of the values.",
        "Uses numpy.ndarray internally, which is described in the documentation of that package.",
    ]


def test_docs_are_harvested_once_and_split(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path))
    site = tmp_path / "site"
    site.mkdir()
    sentence = "The function number {} returns the sum of what it is given, and it is of no use to anyone."
    names = [f"{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}{'uvwxyz'[i // 100]}" for i in range(400)]
    for i, name in enumerate(names):
        (site / f"m{i}.py").write_text(f'"""{sentence.format(name)}"""\nassert False\n')
        (site / f"again{i}.py").write_text(f'"""{sentence.format(name)}"""\n')
    monkeypatch.setattr(docs_module, "_python_files", lambda: iter(sorted(site.glob("*.py"))))
    train, test = list(docs_module.docs()), list(docs_module.docs(split="test"))
    assert len(train) + len(test) == 400 and not set(train) & set(test) and 5 < len(test) < 45
    monkeypatch.setattr(docs_module, "_python_files", lambda: pytest.fail("harvested twice"))
    assert list(docs_module.docs()) == train


CHAT = "{% for m in messages %}<{{ m.role }}> {{ m.content }} </s> {% endfor %}"


def ids(tokenizer, text):
    """By hand: words of the vocabulary, everything else unknown."""
    return [tokenizer.get_vocab().get(word, 0) for word in text.replace("<", " < ").replace(">", " > ").split()]


def test_chat_template_makes_an_exchange_of_every_two_texts(tmp_path, tokenizer):
    said = ["the model", "reads text", "text is made", "of words", "that"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in said))
    tokenizer.chat_template = CHAT
    tokenizer.add_tokens(["<user>", "<assistant>", "</s>"], special_tokens=True)
    data = str(tmp_path / "a.jsonl")
    shuffled = texts(data, 0)
    wanted = []
    for question, answer in zip(shuffled[::2], shuffled[1::2], strict=False):
        for role, text in (("<user>", question), ("<assistant>", answer)):
            wanted += [tokenizer.get_vocab()[role], *ids(tokenizer, text), tokenizer.get_vocab()["</s>"]]
    asked = Calibrate(data=Part("text", {"path": data}), samples=1, length=len(wanted), template="chat")
    [batch], key = batches(asked, tokenizer, LlamaConfig(vocab_size=50), 0)
    assert batch["input_ids"].tolist() == [wanted]
    assert batches(wish(tmp_path, samples=1, length=8), tokenizer, LlamaConfig(vocab_size=50), 0)[1] != key
    with pytest.raises(InputError, match="gives 0 sequences"):  # the fifth text has no answer
        batches(asked.model_copy(update={"length": len(wanted) + 1}), tokenizer, LlamaConfig(vocab_size=50), 0)


def test_conversations_keep_their_roles_and_need_the_template(tmp_path, tokenizer):
    messages = [{"role": role, "content": "the model"} for role in ("system", "user", "assistant")]
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": messages}) + "\n")
    asked = wish(tmp_path, samples=1, length=12, template="chat")
    with pytest.raises(InputError, match=r"template: chat: the model's tokenizer has no chat template"):
        batches(asked, tokenizer, LlamaConfig(vocab_size=50), 0)
    tokenizer.chat_template = CHAT
    tokenizer.add_tokens(["<system>", "<user>", "<assistant>", "</s>"], special_tokens=True)
    [batch], _ = batches(asked, tokenizer, LlamaConfig(vocab_size=50), 0)
    words = "<system> the model </s> <user> the model </s> <assistant> the model </s>".split()  # noqa: SIM905
    assert batch["input_ids"].tolist() == [[tokenizer.get_vocab()[word] for word in words]]
    with pytest.raises(InputError, match="holds conversations; write `template: chat`"):
        batches(wish(tmp_path), tokenizer, LlamaConfig(vocab_size=50), 0)
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(InputError, match="refuses a conversation: no system role"):
        batches(asked, tokenizer, LlamaConfig(vocab_size=50), 0)


def test_random_tokens_have_no_template(tokenizer):
    with pytest.raises(InputError, match="random gives tokens, no text"):
        batches(Calibrate(data=Part("random"), template="chat"), tokenizer, LlamaConfig(vocab_size=50), 0)
