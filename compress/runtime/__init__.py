"""What a checkpoint's config asks of whoever runs the model, obeyed in transformers."""

from compress.runtime.attached import Attached, attach
from compress.runtime.tokens.trace import traced

__all__ = ["Attached", "attach", "traced"]
