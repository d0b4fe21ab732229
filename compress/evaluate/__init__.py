"""What a model is worth and what it costs: perplexity, likeness of embeddings, latency, bytes."""
