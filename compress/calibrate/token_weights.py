"""Token weights: how much each token of a batch counts in what is gathered, `[batch, length]`, finite and ≥ 0."""

from __future__ import annotations

from xxhash import xxh3_128

from compress.errors import InputError
from compress.inputs.batch import TOKEN_WEIGHT, Batch, rows


def key_of_weights(batches: list[Batch]) -> str:
    """What tells batches apart by their token weights, "" where there are none.

    Raises InputError for weights of a wrong shape, and for numbers that are negative or not finite.
    """
    digest, found = xxh3_128(), False
    for number, batch in enumerate(batches):
        if (weight := batch.get(TOKEN_WEIGHT)) is None:
            continue
        if weight.dim() != 2 or len(weight) != rows(batch):
            shape = f"batch {number} has weights of shape {list(weight.shape)}"
            raise InputError(f"{TOKEN_WEIGHT}: {shape}; give it [{rows(batch)}, tokens of a sample]")
        if not weight.isfinite().all() or (weight < 0).any():
            raise InputError(f"{TOKEN_WEIGHT}: batch {number} has {float(weight.min()):g}; give it finite numbers ≥ 0")
        found = True
        digest.update(f"{number} {list(weight.shape)} ".encode())
        digest.update(weight.double().contiguous().cpu().numpy().tobytes())
    return f" weighed {digest.hexdigest()}" if found else ""
