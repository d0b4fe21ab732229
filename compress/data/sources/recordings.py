"""Sound in local files."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compress.errors import InputError
from compress.files.ordinary import check_ordinary
from compress.registry import sources

LINES = "metadata.jsonl"
CURE = 'a line is {"audio": a .wav beside the file, "text": what is said}'


@sources.add("recordings", gives="speech")
def recordings(*, path: str, audio: str = "audio", text: str = "text") -> Iterator[tuple[Tensor, int, str | None]]:
    """A .wav, a folder of them, or a .jsonl (in a folder: `metadata.jsonl`) whose lines name recordings and their text.

    Float32 `[samples]`, samples a second, and what is said where a line says it; channels are averaged. Raises
    InputError for a path where there is none, and for a file or line that cannot be used.
    """
    root = Path(path).expanduser()
    lines = root / LINES if root.is_dir() and (root / LINES).is_file() else root
    if lines.suffix == ".jsonl":
        yield from _told(lines, audio, text)
        return
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() == ".wav") if root.is_dir() else [root]
    if not files or not root.exists():
        raise InputError(f"{path}: no .wav there; calibrate.data names where the recordings are")
    for file in files:
        yield *_heard(file), None


def _told(lines: Path, audio: str, text: str) -> Iterator[tuple[Tensor, int, str]]:
    check_ordinary(lines)
    for number, line in enumerate(lines.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            file, said = row[audio], row[text]
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{lines}:{number}: no {audio} and {text}; {CURE}") from None
        if not isinstance(file, str) or not isinstance(said, str):
            raise InputError(f"{lines}:{number}: {audio} and {text} are no strings; {CURE}")
        yield *_heard(lines.parent / file), said


def _heard(file: Path) -> tuple[Tensor, int]:
    from scipy.io import wavfile

    check_ordinary(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of chunks that are no sound
            rate, samples = wavfile.read(file)
    except (OSError, ValueError, struct.error) as error:
        raise InputError(f"{file}: not readable as a .wav ({error}); convert or remove it") from None
    if samples.size == 0:
        raise InputError(f"{file}: holds no sound; remove it")
    wave = samples.astype(np.float32)
    if samples.dtype == np.uint8:
        wave = (wave - 128) / 128
    elif samples.dtype.kind == "i":
        wave /= -float(np.iinfo(samples.dtype).min)
    return torch.from_numpy(wave if wave.ndim == 1 else wave.mean(1)), int(rate)
