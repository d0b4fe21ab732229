"""Speech without a network: sentences spoken by a synthesiser of formants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from scipy.signal import butter, lfilter, sosfilt
from torch import Tensor

from compress.registry import sources

RATE = 16_000
"""Samples a second."""

SENTENCES = (
    "the train to the coast leaves at nine",
    "she put the letter on the kitchen table",
    "it rained all night and the river rose",
    "two old men played chess in the park",
    "please close the window before you go",
    "the bread is still warm from the oven",
    "he learned to swim when he was six",
    "a small dog ran across the empty street",
    "we counted seven ships in the harbour",
    "the lamp fell over but did not break",
    "nobody knew who had opened the gate",
    "turn left at the church and go uphill",
    "her brother plays the violin very well",
    "the soup needs a little more salt",
    "they built the bridge in only two years",
    "snow covered the roofs of the village",
    "the meeting was moved to next tuesday",
    "bring an umbrella it may rain again",
    "the clock in the hall has stopped",
    "children laughed and ran into the water",
)
KEPT_BACK = 5
"""The last of them belong to the split `test`."""

# Letter → (first, second formant in hertz), roughly those of the vowel that it stands for (Peterson & Barney 1952).
VOWELS = {"a": (730, 1090), "e": (530, 1840), "i": (390, 1990), "o": (570, 840), "u": (440, 1020), "y": (300, 2300)}
# Letter → the band of its noise in hertz; what is voiced hums beneath it.
NOISES = {
    **{"s": (4000, 7500), "z": (4000, 7500), "f": (1500, 7000), "v": (1500, 7000), "h": (500, 3000), "x": (2500, 7000)},
    **{
        "c": (2500, 6000),
        "t": (3000, 7000),
        "d": (2500, 6000),
        "k": (1500, 4000),
        "g": (1000, 3000),
        "q": (1200, 3500),
    },
    **{"p": (400, 2500), "b": (300, 1500), "j": (2000, 5000)},
}
NASALS = {"m": (250, 1100), "n": (250, 1700), "l": (360, 1300), "r": (310, 1060), "w": (290, 610)}
VOICED = frozenset("zvdgbj")
LENGTHS = {"vowel": 0.11, "noise": 0.06, "nasal": 0.07, " ": 0.09}
"""Seconds."""


@sources.add("speech", gives="speech")
def speech(*, split: Literal["train", "test"] = "train") -> Iterator[tuple[Tensor, int, str]]:
    """Sentences letter by letter, each with a voice of its own: float32 `[samples]`, samples a second, what is said.

    Vowels are pulses through two resonances, consonants bands of noise. It has the spectra and the rhythm of speech,
    but no recogniser was trained on it: recordings are better (`recordings`). `test` are sentences that `train` keeps
    back.
    """
    numbered = list(enumerate(SENTENCES))
    for number, text in numbered[:-KEPT_BACK] if split == "train" else numbered[-KEPT_BACK:]:
        yield torch.from_numpy(_say(text, np.random.default_rng(number))), RATE, text


def _say(text: str, random: np.random.Generator) -> np.ndarray:
    pitch = random.uniform(90, 220)
    parts = [_letter(letter, pitch * (1 - 0.15 * i / len(text)), random) for i, letter in enumerate(text)]
    wave = np.concatenate(parts)
    return (0.3 * wave / np.abs(wave).max() + 0.001 * random.standard_normal(len(wave))).astype(np.float32)


def _letter(letter: str, pitch: float, random: np.random.Generator) -> np.ndarray:
    if letter in VOWELS:
        return _hum(VOWELS[letter], pitch, LENGTHS["vowel"] * random.uniform(0.9, 1.2))
    if letter in NASALS:
        return 0.5 * _hum(NASALS[letter], pitch, LENGTHS["nasal"])
    if letter not in NOISES:
        return np.zeros(int(LENGTHS[" "] * RATE))
    count = int(LENGTHS["noise"] * RATE)
    band = butter(2, NOISES[letter], "bandpass", fs=RATE, output="sos")
    noise: Any = sosfilt(band, random.standard_normal(count))
    noise = 0.4 * noise * np.hanning(count)
    return noise + (0.4 * _hum((250, 900), pitch, LENGTHS["noise"]) if letter in VOICED else 0)


def _hum(formants: tuple[float, float], pitch: float, seconds: float) -> np.ndarray:
    """Pulses of the `pitch` through two resonances."""
    count = int(seconds * RATE)
    wave = np.zeros(count)
    wave[:: int(RATE / pitch)] = 1
    for frequency in formants:
        radius = np.exp(-np.pi * 80 / RATE)  # 80 hertz wide
        wave = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2], wave)
    return wave / max(np.abs(wave).max(), 1e-9) * np.hanning(count) ** 0.3
