"""All samples, cut into batches that have a key."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from torch import Tensor


def cut(samples: Mapping[str, Tensor], batch: int) -> tuple[list[dict[str, Tensor]], str]:
    """Batches of at most `batch` samples, and the hash of all of them; the tensors' first dimension is the sample."""
    digest = blake2b(digest_size=16)
    for name, value in samples.items():
        digest.update(f"{name}{list(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    starts = range(0, len(next(iter(samples.values()))), batch)
    return [{name: value[i : i + batch] for name, value in samples.items()} for i in starts], digest.hexdigest()
