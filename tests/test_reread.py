"""Two models that cut text differently are measured on the same bytes, and each writes in its own tokens."""

import json
import math

import lettered
import pytest
import torch
import zoo
from test_vocabulary_step import model, recipe
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from compress.checkpoint.open import open_checkpoint
from compress.data.reread import Reader, reader
from compress.evaluate.continuations import PROMPTS
from compress.evaluate.folder import Questions, evaluate_folder
from compress.inputs.batch import BYTES, COUNTED, LABELS
from compress.model.model import Model
from compress.pipeline import Options, run
from compress.recipe.schema import Calibrate

SHARE = "{prune: vocab, remove: 20%}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A Llama and the same with fewer tokens."""
    place = tmp_path_factory.mktemp("pair")
    dense = model("llama", "byte_level", place / "in", max_position_embeddings=512, initializer_range=0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compress.evaluate.before_after.SAMPLES", 8)
        run(recipe(dense, SHARE), dense, place / "out", Options(latency=False))
    return dense, place / "out"


def nats(folder, text, skipped):
    """By hand: what the model loses on the text behind its first so many characters."""
    tokenizer, stock = AutoTokenizer.from_pretrained(folder), zoo.stock("llama", folder)
    made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = torch.tensor([[tokenizer.bos_token_id, *made["input_ids"], tokenizer.eos_token_id]])
    with torch.no_grad():
        losses = cross_entropy(stock(ids).logits[0, :-1], ids[0, 1:], reduction="none")
    told = [start >= skipped for start, _ in made["offset_mapping"]]
    return float(losses[torch.tensor([*told, True])].double().sum())


def test_loss_is_of_the_same_bytes_and_counts_the_dense_models_tokens(pair):
    dense, out = map(open_checkpoint, pair)
    source = Model.of(dense)
    rows, _ = source.inputs.batches(
        Calibrate(data=str(pair[0].parent / "text.txt"), samples=6, length=40, batch=3), dense
    )
    again = source.inputs.reread(rows, dense, out)
    old, new = map(AutoTokenizer.from_pretrained, pair)
    metric = source.task.metric(rows[0])
    lost, bits = 0.0, 0
    before, after = zoo.stock("llama", pair[0]), zoo.stock("llama", pair[1])
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
            lost, bits = lost + nats(pair[1], text, 0), bits + len(text.encode())
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
        return {"input_ids": made.ids, "offset_mapping": made.offsets}

    def decode(self, ids, **_):
        return self.tokenizer.decode(ids, skip_special_tokens=False)


def test_the_report_compares_per_byte_and_shows_what_each_writes_in_its_own_tokens(pair):
    dense, out = pair
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


@pytest.mark.parametrize(
    ("name", "kind"), [("t5", "unigram"), ("bert", "word_pieces"), ("bert_encoder", "word_pieces")]
)
def test_other_kinds_of_models_are_measured_on_the_same_texts(name, kind, tmp_path):
    changes = {"decoder_start_token_id": 0} if name == "t5" else {"max_position_embeddings": 512}
    dense = model(name, kind, tmp_path / "in", **changes)
    run(recipe(dense, SHARE), dense, tmp_path / "out", Options(evaluate=False))
    one, other = map(open_checkpoint, (dense, tmp_path / "out"))
    assert reader(one, one) is None and reader(one, other) is not None
    source = Model.of(one)
    rows, _ = source.inputs.batches(Calibrate(data=str(tmp_path / "text.txt"), samples=4, length=24, batch=4), one)
    (again,) = source.inputs.reread(rows, one, other)
    old, new = map(AutoTokenizer.from_pretrained, (dense, tmp_path / "out"))
    if name == "bert":
        found = evaluate_folder(other, Questions(samples=4, length=64), one)
        (figure,) = found["quality"]
        assert figure["over"] == "4 × 64 tokens, each model's own" and not found["changes"]
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
