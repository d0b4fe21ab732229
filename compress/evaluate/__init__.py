"""What a model is worth and what it costs: perplexity, likeness of embeddings, latency, bytes."""

from compress.evaluate.latency import Latency, latency
from compress.evaluate.perplexity import Perplexity, perplexity
from compress.evaluate.similarity import Similarity, embed, similarity
from compress.evaluate.size import Size, peak_memory, size

__all__ = [
    "Latency",
    "Perplexity",
    "Similarity",
    "Size",
    "embed",
    "latency",
    "peak_memory",
    "perplexity",
    "similarity",
    "size",
]
