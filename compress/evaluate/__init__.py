"""What a model is worth and what it costs: quality as its task measures it, latency, bytes."""
