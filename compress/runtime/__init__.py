"""What a checkpoint's config asks of whoever runs the model, obeyed in transformers."""

from compress.runtime.skipping import obey

__all__ = ["obey"]
