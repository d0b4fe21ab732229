"""What torch's own modules note of their sizes: made to agree with their tensors, by rule."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

KNOWN = (nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm, _NormBase, nn.GroupNorm, _ConvNd, nn.PReLU)
"""Modules all of whose sizes are seen to here."""


def agree(module: nn.Module, given: Tensor | None = None) -> None:
    """Set a module's sizes to those of its tensors and of what it is `given`, `[samples, channels, …]`.

    A grouped convolution has as many groups as the channels that arrive are times those that a filter reads; a
    transposed one as many as its bias is times those that a filter writes. Of a group norm whole groups go.
    """
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm) and weight is not None:
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()
    elif isinstance(module, _NormBase):
        held = weight if weight is not None else module.running_mean
        module.num_features = held.shape[0] if held is not None else _channels(module, given, module.num_features)
    elif isinstance(module, nn.GroupNorm):
        channels = len(weight) if weight is not None else _channels(module, given, module.num_channels)
        module.num_groups, module.num_channels = module.num_groups * channels // module.num_channels, channels
    elif isinstance(module, _ConvTransposeNd):
        module.in_channels = module.weight.shape[0]
        if module.groups > 1 and module.bias is not None:
            module.groups = len(module.bias) // module.weight.shape[1]
        elif module.groups > 1 and module.weight.shape[1] == 1:
            module.groups = module.in_channels
        module.out_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, _ConvNd):
        module.out_channels = module.weight.shape[0]
        if module.groups == 1:
            module.in_channels = module.weight.shape[1]
        elif given is not None:
            module.in_channels = _channels(module, given, module.in_channels)
            module.groups = module.in_channels // module.weight.shape[1]


def _channels(module: nn.Module, given: Tensor | None, otherwise: int) -> int:
    """Channels of what a module is given; a sample may come without a dimension for samples."""
    if given is None:
        return otherwise
    pixels = next((n for n in (1, 2, 3) if type(module).__name__.endswith(f"{n}d")), None)
    return given.shape[1] if pixels is None else given.shape[given.dim() - pixels - 1]
