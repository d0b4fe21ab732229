"""Whisper tiny.en: how many words of other speech it writes down rightly."""

from __future__ import annotations

import re
from typing import Any

import real_speech
import torch
import whisper_tiny
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, GenerationConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from compress.data.sources.recordings import recordings
from compress.metrics.word_errors import changes
from subjects.subject import Score, Subject

BATCH, IGNORED, MOST = 3, -100, 40


def subject() -> Subject:
    """The model, speech with what it writes of it, and the words that it hears rightly in other speech."""
    folder = whisper_tiny.folder()
    dense: Any = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    dense.config.use_cache = False  # caches in the output are in Torch-Pruning's way
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    known, _ = _heard("train", tokenizer, dense.config)
    (others, *_), said = _heard("test", tokenizer, dense.config, 100)
    writing = GenerationConfig.from_model_config(dense.config)
    writing.max_length, writing.num_beams, writing.use_cache = MOST, 1, True

    @torch.no_grad()
    def measure(model: Any) -> Score:
        inputs, labels = others
        tokens = model.generate(inputs["input_features"], generation_config=writing, do_sample=False)
        wrong = [
            changes(_words(text), _words(found))
            for text, found in zip(said, tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True)
        ]
        right = torch.tensor([1 - n / len(_words(text)) for n, text in zip(wrong, said, strict=True)])
        surprise = float(loss(model(**inputs), labels))
        return Score(right, {"nats a token": surprise})

    inner = [name for name, module in dense.named_modules() if name.endswith("fc1") and isinstance(module, nn.Linear)]
    measured = (
        f"words right of {len(said)} sentences (1 − word error rate of a sentence); cross-entropy of their tokens"
    )
    return Subject(dense, known, loss, measure, measured, inner)


def loss(output: Any, labels: Tensor) -> Tensor:
    """Of the tokens that are said."""
    return cross_entropy(output.logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def _heard(split: str, tokenizer: Any, config: Any, batch: int = BATCH) -> tuple[list[tuple[Any, Tensor]], list[str]]:
    """Batches of what the model is given with the tokens that are said, and the text of all."""
    found = list(recordings(path=str(real_speech.folder(split))))
    texts = [text for _, _, text in found]
    hears = WhisperFeatureExtractor()
    made = []
    for i in range(0, len(found), batch):
        waves = [wave.numpy() for wave, _, _ in found[i : i + batch]]
        spectra = hears(waves, sampling_rate=real_speech.RATE, return_tensors="pt").input_features
        rows = [torch.tensor(tokenizer.encode(text)) for text in texts[i : i + batch]]
        ids = nn.utils.rnn.pad_sequence(rows, True, config.pad_token_id)
        labels = nn.utils.rnn.pad_sequence([row[1:] for row in rows], True, IGNORED)
        made.append(({"input_features": spectra, "decoder_input_ids": ids[:, :-1]}, labels))
    return made, texts


def _words(text: str) -> list[str]:
    """Without case and punctuation."""
    return re.findall(r"[\w']+", text.lower())
