"""Random tokens, for benchmarks and for models without a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from compress.registry import sources


@sources.add("random", gives="tokens")
def random(vocabulary: int, seed: int) -> Iterator[list[int]]:
    """Uniformly random tokens: says nothing about what a model does with text."""
    generator = Random(seed)
    while True:
        yield generator.choices(range(vocabulary), k=1024)
