"""Models that hear: traced whole, their losses and error rates, and the recordings that they are given."""

from __future__ import annotations

import json
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import several
import torch
import transformers as tf
from hypothesis import given as drawn
from hypothesis import strategies as st
from scipy.io import wavfile

from compress.data.speech import fitted, recorded
from compress.errors import InputError
from compress.evaluate.read import quality_of
from compress.inputs.audio import Audio
from compress.inputs.batch import LABELS, given
from compress.metrics.word_errors import ErrorRate, changes
from compress.model.build import empty_model
from compress.model.model import Model
from compress.output_format.probe import attention_shapes
from compress.recipe.part import Part
from compress.recipe.schema import Calibrate
from compress.registry import sources
from compress.tasks.spelling import spelling

UNRUN = {"whisper": set(), "wav2vec2": {"wav2vec2.masked_spec_embed"}}  # that one is for training


@pytest.mark.parametrize("name", UNRUN)
def test_all_of_a_model_that_hears_is_traced(name, tmp_path):
    source = Model.of(several.save(name, tmp_path))
    assert isinstance(source.inputs, Audio)
    assert source.task.name == {"whisper": "transcription", "wav2vec2": "ctc"}[name]
    assert set(source.graph.untraced) == UNRUN[name]
    free = [(f.kind, f.size) for f in source.graph.families.values() if f.pinned is None]
    layers = {"whisper": (6, 4), "wav2vec2": (3, 3)}[name]  # a decoder's attention to the encoder has heads too
    assert (free.count(("heads", 4)), free.count(("channels", 48))) == layers
    with torch.no_grad():
        assert torch.isfinite(several.stock(source.checkpoint)(**source.inputs.check(3)).logits).all()


def test_the_search_of_numbers_sees_heads_that_look_from_one_sequence_to_another(tmp_path):
    """Heads of four, and of another width: a decoder's own attention does not show what it reads the encoder with."""
    config = several.MODELS["whisper"]().config
    model = empty_model(config, tf.WhisperForConditionalGeneration)
    assert attention_shapes(model) == [(4, 8)] * (2 + 2 * 2)


def test_losses_are_transformers_own(tmp_path):
    ctc = Model.of(several.save("wav2vec2", tmp_path / "ctc"))
    model = several.stock(ctc.checkpoint)
    labels = torch.tensor([[3, 4, 4, 5], [7, 2, -100, -100]])
    batch = {**ctc.inputs.check(), LABELS: labels}
    with torch.no_grad():
        output = model(**given(batch))
        each = [model(input_values=batch["input_values"][i : i + 1], labels=labels[i : i + 1]).loss for i in (0, 1)]
    found = ctc.task.loss(output, batch)
    assert float(found) == pytest.approx(float(each[0] / 4 + each[1] / 2) / 2, rel=1e-4)
    whisper = Model.of(several.save("whisper", tmp_path / "whisper"))
    model, batch = several.stock(whisper.checkpoint), whisper.inputs.check()
    batch[LABELS] = batch["decoder_input_ids"].roll(-1, 1)
    with torch.no_grad():
        found = whisper.task.loss(model(**given(batch)), batch)
        assert float(found) == pytest.approx(float(model(**given(batch), labels=batch[LABELS]).loss), rel=1e-5)


def test_a_recogniser_is_told_its_text_one_place_later_and_sound_is_cut_to_its_places(tmp_path):
    source = Model.of(several.save("whisper", tmp_path, tokenizer=True))
    (batch,), _ = source.inputs.batches(Calibrate(samples=3, length=30), source.checkpoint)
    labels, before = batch[LABELS], batch["decoder_input_ids"]
    assert batch["input_features"].shape == (3, 16, 40)
    assert (before[:, 0] == 1).all()  # decoder_start_token_id
    told = labels[:, :-1] != -100
    assert torch.equal(before[:, 1:][told], labels[:, :-1][told])
    tokenizer = source.checkpoint and several.spoken._tokenizer()
    texts = [text for _, _, text in Part("speech").bind(sources)()]
    assert [tokenizer.decode(row[row >= 0]) for row in labels] == texts[:3]


def test_what_is_written_is_measured_in_words(tmp_path):
    source = Model.of(several.save("whisper", tmp_path, tokenizer=True))
    batches, _ = source.inputs.batches(Calibrate(samples=2, length=30, batch=1), source.checkpoint)
    found = quality_of(several.stock(source.checkpoint), batches, task=source.task)
    assert found.main.name == "word_error_rate" and found.main.value > 0
    record = found.record["word_error_rate"]
    assert record["said"] == sum(len(text.split()) for _, _, text in list(Part("speech").bind(sources)())[:2])


def test_words_are_read_without_case_and_without_the_marks_around_them(tmp_path):
    tokenizer = several.spoken._tokenizer()
    tokenizer.save_pretrained(tmp_path)
    noun, spell = spelling(SimpleNamespace(name_or_path=str(tmp_path)))
    found = spell([*tokenizer.encode("“It was” – the best, isn't it? …"), -100])
    assert (noun, found) == ("word", ["it", "was", "the", "best", "isn't", "it"])


@cache
def slowly(one: tuple, other: tuple) -> int:
    """The least number of changes, by its definition."""
    if not one or not other:
        return len(one) + len(other)
    replaced = slowly(one[1:], other[1:]) + (one[0] != other[0])
    return min(replaced, 1 + slowly(one[1:], other), 1 + slowly(one, other[1:]))


@drawn(st.lists(st.integers(0, 3), max_size=7), st.lists(st.integers(0, 3), max_size=7))
def test_changes_are_the_least(one, other):
    assert changes(one, other) == slowly(tuple(one), tuple(other))


def test_an_error_rate_is_over_all_words_and_pairs_samples():
    metric = ErrorRate("word", lambda output, batch: output)
    dense = [metric.read([("a b c d".split(), "a b x d".split())], {}), metric.read([(["e"] * 6, ["e"] * 3)], {})]  # noqa: SIM905
    model = [metric.read([("a b c d".split(), [])], {}), metric.read([(["e"] * 6, ["e"] * 3)], {})]  # noqa: SIM905
    found = metric.quality(metric.merged(model), metric.merged(dense))
    assert (found.main.value, found.main.dense) == (pytest.approx(7 / 10), pytest.approx(4 / 10))
    assert not found.main.higher_is_better and found.changes["word_error_rate"].value == pytest.approx(7 / 4)


def test_ctc_writes_repeated_tokens_once_and_no_blanks(tmp_path):
    source = Model.of(several.save("wav2vec2", tmp_path))
    best = torch.tensor([[0, 5, 5, 0, 5, 7, 7, 0]])
    output = SimpleNamespace(logits=torch.nn.functional.one_hot(best, 32).float())
    batch = {LABELS: torch.tensor([[5, 5, 7, -100]])}
    metric = source.task.metric(batch)
    assert metric.quality(metric.read(output, batch)).main.value == 0
    batch[LABELS][0, 1] = 9
    assert metric.quality(metric.read(output, batch)).main.value == pytest.approx(1 / 3)


def test_sentences_are_spoken_the_same_every_time_and_others_are_kept_back():
    one, other = (list(Part("speech").bind(sources)()) for _ in range(2))
    assert all(torch.equal(x[0], y[0]) for x, y in zip(one, other, strict=True))
    assert all(wave.abs().max() <= 1 and len(wave) > rate for wave, rate, _ in one)
    test = {text for _, _, text in Part("speech", {"split": "test"}).bind(sources)()}
    assert len(test) == 5 and not test & {text for _, _, text in one}


def test_recordings_are_read_averaged_and_resampled(tmp_path):
    time = np.arange(8000) / 8000
    tone = np.sin(2 * np.pi * 440 * time)
    both = np.stack([tone, -tone / 3], 1)  # whose mean is a third of the first
    wavfile.write(tmp_path / "a.wav", 8000, (both * 32767).astype(np.int16))
    ((wave, text),) = recorded(str(tmp_path), 1, 16000, seed=0)
    assert text is None and len(wave) == 16000
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000) / 3
    assert np.abs(wave - expected)[500:-500].max() < 1e-2
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"audio": "a.wav", "text": "a tone"}) + "\n")
    assert recorded(str(tmp_path), 1, 8000, seed=0)[0][1] == "a tone"
    (tmp_path / "metadata.jsonl").write_text('{"audio": 3, "text": "x"}\n')
    with pytest.raises(InputError, match=r"metadata\.jsonl:1: audio and text are no strings"):
        recorded(str(tmp_path), 1, 8000, seed=0)
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"a\.wav: not readable as a \.wav"):
        recorded(str(tmp_path), 1, 8000, seed=0)
    with pytest.raises(InputError, match="docs gives text, and the model hears; take recordings, speech or random"):
        recorded(Part("docs"), 1, 8000, seed=0)


def test_spectra_are_cut_or_filled_with_silence():
    features = torch.arange(12.0).view(1, 3, 4)
    assert torch.equal(fitted(features, (3, 2)), features[..., :2])
    longer = fitted(features, (3, 6))
    assert torch.equal(longer[..., :4], features) and (longer[..., 4:] == 0).all()


def test_what_no_model_of_sound_is_given_is_refused(tmp_path):
    source = Model.of(several.save("whisper", tmp_path))
    with pytest.raises(InputError, match=r"calibrate\.template: chat: the model hears"):
        source.inputs.batches(Calibrate(samples=2, template="chat"), source.checkpoint)
    with pytest.raises(InputError, match="no tokenizer to spell what is said"):
        source.inputs.batches(Calibrate(samples=2), source.checkpoint)
    assert not source.inputs.meaningful(source.checkpoint)
