"""Two models that cut text differently are measured on the same bytes, and each writes in its own tokens."""

import math

import lettered
import pytest
import torch
import zoo
from lettered import fewer, model
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, BatchEncoding

from compress.checkpoint.open import open_checkpoint
from compress.data.reread import Reader, reader
from compress.evaluate.folder import Questions, evaluate_folder
from compress.inputs.batch import BYTES, COUNTED, LABELS
from compress.inputs.choose import inputs_of
from compress.model.build import empty_model, load_config, model_class
from compress.recipe.schema import Calibrate
from compress.tasks.choose import task_of


def pair(name, kind, place, **changes):
    """A model, and another with fewer tokens; in what else they differ does not matter here."""
    dense = model(name, kind, place / "in", **changes)
    data = fewer(kind, place)
    return dense, model(name, kind, place / "out", data=data, **changes)


def nats(folder, text):
    """By hand: what the model loses on the text."""
    tokenizer, stock = AutoTokenizer.from_pretrained(folder), zoo.stock("llama", folder)
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(text)[1:-1], tokenizer.eos_token_id]])
    with torch.no_grad():
        return float(cross_entropy(stock(ids).logits[0, :-1], ids[0, 1:], reduction="sum"))


def opened(folder):
    """The checkpoint, what its model reads and what it is for."""
    checkpoint = open_checkpoint(folder)
    config = load_config(checkpoint)
    made = empty_model(config, model_class(config, checkpoint))
    return checkpoint, inputs_of(made, config), task_of(made)


def test_loss_is_of_the_same_bytes_and_counts_the_dense_models_tokens(tmp_path):
    both = pair("llama", "byte_level", tmp_path, initializer_range=0.3)
    dense, inputs, task = opened(both[0])
    out = open_checkpoint(both[1])
    rows, _ = inputs.batches(Calibrate(data=str(tmp_path / "text.txt"), samples=6, length=40, batch=3), dense)
    again = inputs.reread(rows, dense, out)
    old, new = map(AutoTokenizer.from_pretrained, both)
    metric = task.metric(rows[0])
    lost, bits = 0.0, 0
    before, after = zoo.stock("llama", both[0]), zoo.stock("llama", both[1])
    readings = []
    for row, batch in zip(rows, again, strict=True):
        with torch.no_grad():
            kept = {name: value for name, value in batch.items() if name in ("input_ids", "attention_mask")}
            readings.append((metric.read(before(**row), row), metric.read(after(**kept), batch)))
        for number, ids in enumerate(row["input_ids"].tolist()):
            text = old.decode(ids[1:-1])
            mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))[number].bool()
            assert new.decode(batch["input_ids"][number][mask][1:-1]) == text
            assert batch[COUNTED][number] == len(ids) - 1 and batch[BYTES][number] == len(text.encode())
            lost, bits = lost + nats(both[1], text), bits + len(text.encode())
    assert any((batch["input_ids"].shape[1] > 40) for batch in again)
    found = metric.quality(metric.merged([one for _, one in readings]), metric.merged([one for one, _ in readings]))
    perplexity, bytes_ = found.figures
    assert perplexity.value == pytest.approx(math.exp(lost / (6 * 39)), rel=1e-4)
    assert bytes_.value == pytest.approx(lost / math.log(2) / bits, rel=1e-4)
    assert perplexity.over == "6 × 40 tokens of the dense model" and bytes_.over == f"6 texts of {bits:,} bytes"
    ratio = found.changes["perplexity"].value
    assert ratio == pytest.approx(perplexity.value / perplexity.dense, rel=1e-6)
    assert found.changes["bits_per_byte"].value == pytest.approx(bytes_.value / bytes_.dense, rel=1e-6)


def test_the_text_of_the_first_token_is_predicted_by_neither():
    old, new = (Loaded(lettered.whole(lettered.written(kind))) for kind in ("byte_level", "word_pieces"))
    old.tokenizer.post_processor = lettered.processors.ByteLevel()
    ids = old.tokenizer.encode("sitting there quietly").ids
    first = old.tokenizer.decode(ids[:1])
    read = Reader(old, new).row(ids)
    told = [one for one, seen in zip(read.ids, read.predicted, strict=True) if seen]
    starts = [start for start, _ in new.tokenizer.encode("sitting there quietly", add_special_tokens=False).offsets]
    assert len(told) == sum(start >= len(first) for start in starts) + 1  # and [SEP]
    assert (read.tokens, read.bytes) == (len(ids) - 1, len("sitting there quietly") - len(first))


class Loaded:
    """As transformers load a tokenizer, as far as a reader asks."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text, add_special_tokens=True, **_):
        made = self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return BatchEncoding({"input_ids": made.ids}, made)

    def decode(self, ids, **_):
        return self.tokenizer.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize(
    ("name", "kind"), [("t5", "unigram"), ("bert", "word_pieces"), ("bert_encoder", "word_pieces")]
)
def test_other_kinds_of_models_are_measured_on_the_same_texts(name, kind, tmp_path):
    both = pair(name, kind, tmp_path, **({"decoder_start_token_id": 0} if name == "t5" else {}))
    one, inputs, _ = opened(both[0])
    other = open_checkpoint(both[1])
    assert reader(one, one) is None and reader(one, other) is not None
    rows, _ = inputs.batches(Calibrate(data=str(tmp_path / "text.txt"), samples=4, length=24, batch=4), one)
    (again,) = inputs.reread(rows, one, other)
    old, new = map(AutoTokenizer.from_pretrained, both)
    if name == "bert":
        found = evaluate_folder(other, Questions(data=str(tmp_path / "text.txt"), samples=4, length=32), one)
        (figure,) = found["quality"]
        assert figure["over"] == "4 × 32 tokens, each model's own" and not found["changes"]
        assert COUNTED not in again and (again[LABELS] >= 0).any()
        return
    for row, one in zip(rows[0]["input_ids"], again["input_ids"], strict=True):
        read = old.decode(row, skip_special_tokens=True).removeprefix("##")
        assert new.decode(one, skip_special_tokens=True) == read
    if name == "t5":
        labels = again[LABELS].masked_fill(again[LABELS] < 0, new.pad_token_id)
        assert new.batch_decode(labels, skip_special_tokens=True) == old.batch_decode(
            rows[0][LABELS], skip_special_tokens=True
        )
        assert torch.equal(again["decoder_input_ids"][:, 1:], labels[:, :-1])
        assert again[COUNTED].tolist() == [24] * 4
