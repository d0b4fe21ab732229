"""Recordings as a model of sound takes them, and what is said in them as it writes it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.signal import resample_poly
from torch import Tensor

from compress.errors import InputError
from compress.recipe.part import Part
from compress.registry import sources

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint

MOST_RECORDINGS = 10_000
"""Recordings of a source that are read at most."""

MOST_SECONDS = 30
"""Of a recording; what comes later is not heard."""


def ear(checkpoint: Checkpoint, config: Any, bins: int | None) -> Any | None:
    """transformers' feature extractor that the checkpoint names, else that of its architecture with so many `bins`;
    None where there is neither.

    Raises InputError for a preprocessor_config.json that cannot be used.
    """
    import transformers
    from transformers.models.auto.feature_extraction_auto import (
        FEATURE_EXTRACTOR_MAPPING_NAMES,  # pyright: ignore[reportPrivateImportUsage]
    )

    file = checkpoint.folder / "preprocessor_config.json"
    if file.exists():
        try:
            return transformers.AutoFeatureExtractor.from_pretrained(
                checkpoint.folder, trust_remote_code=checkpoint.trust_remote_code
            )
        except Exception as error:  # transformers raises whatever its readers do
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"{file}: not understood by transformers: {reason}") from error
    known: Any = FEATURE_EXTRACTOR_MAPPING_NAMES
    name = known.get(getattr(config, "model_type", ""))
    found = getattr(transformers, name, None) if name else None
    return None if found is None else found(**({"feature_size": bins} if bins else {}))


def recorded(data: Part | str, samples: int, rate: int, seed: int) -> list[tuple[np.ndarray, str | None]]:
    """`samples` recordings of `rate` samples a second, float32 `[length]`, with what is said where that is known.

    Every recording is taken as often as another, from the `seed`-th on. Raises InputError for a source without sound.
    """
    part = data if isinstance(data, Part) else Part("recordings", {"path": str(data)})
    entry = sources.get(part.name)
    if entry.meta.gives != "speech":
        known = ", ".join(name for name in sources.names() if sources.get(name).meta.gives == "speech")
        given = entry.meta.gives
        raise InputError(f"calibrate.data: {part.name} gives {given}, and the model hears; take {known} or random")
    found = list(islice(part.bind(sources)(), MOST_RECORDINGS))
    if not found:
        raise InputError(f"calibrate.data: {part} gives no recording")
    drawn = [found[(i + seed) % len(found)] for i in range(samples)]
    return [(_at(wave, own, rate), text) for wave, own, text in drawn]


def _at(wave: Tensor, own: int, rate: int) -> np.ndarray:
    """Resampled, and cut."""
    samples = wave.numpy()[: MOST_SECONDS * own]
    if own != rate:
        shared = int(np.gcd(own, rate))
        samples = resample_poly(samples, rate // shared, own // shared)
    return np.ascontiguousarray(samples, dtype=np.float32)


def fitted(features: Tensor, size: tuple[int, ...]) -> Tensor:
    """Features `[rows, …]` cut, or filled up with what silence gives (their least value), to `[rows, *size]`."""
    for dim, length in enumerate(size, 1):
        features = features.narrow(dim, 0, min(length, features.shape[dim]))
        if (lacking := length - features.shape[dim]) > 0:
            shape = [lacking if i == dim else n for i, n in enumerate(features.shape)]
            features = torch.cat([features, features.min().expand(shape)], dim)
    return features.contiguous()


def spelled(texts: list[str], tokenizer: Any) -> list[list[int]]:
    """What is said as tokens, in capitals where the tokenizer has no other letters, with its special tokens."""
    vocabulary = tokenizer.get_vocab()
    capitals = "A" in vocabulary and "a" not in vocabulary
    return [tokenizer.encode(text.upper() if capitals else text) for text in texts]
