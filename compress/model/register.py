"""After `import compress.model.register`, transformers opens checkpoints of the generic kind without remote code."""

from transformers import AutoConfig

from compress.model.modeling_compress import MODEL_TYPE, CompressedConfig

AutoConfig.register(MODEL_TYPE, CompressedConfig, exist_ok=True)
# Model classes register themselves with transformers when a configuration of their kind is read.

__all__ = ["CompressedConfig"]
