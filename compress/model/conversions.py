"""Tensors that stock transformers compute of stored ones when they load: parts of fused projections, and the like."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compress.checkpoint.converted import Converted, Read
from compress.checkpoint.header import TensorSpec
from compress.model.disk_names import transforms

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint

Sources = Mapping[str, list[str]]  # a converter's pattern → the stored tensors that match it, in order


def find_conversions(
    checkpoint: Checkpoint, model: nn.Module, lacking: Mapping[str, Tensor], taken: Collection[str]
) -> dict[str, Converted]:
    """State name → how it is made, for what of `lacking` (name → its shape on meta) transformers' own table makes of
    stored tensors that are not `taken`.

    Each conversion is tried on tensors without data: one that fails, or gives another shape than the model's, makes
    nothing.
    """
    found: dict[str, Converted] = {}
    for target, converter, sources in _matches(checkpoint, model, taken):
        names = [name for own in sources.values() for name in own]
        empty = {name: torch.empty(checkpoint.tensors[name].shape, device="meta") for name in names}
        try:
            made = _convert(model, target, converter, sources, empty.__getitem__)
        except Exception:  # foreign code, which refuses what is not whole
            continue
        if all(tensor.shape == lacking[name].shape for name, tensor in made.items() if name in lacking):
            first = checkpoint.tensors[names[0]]
            for name, tensor in ((name, tensor) for name, tensor in made.items() if name in lacking):
                spec = TensorSpec(name, first.file, first.dtype, tuple(tensor.shape))
                found[name] = Converted(spec, tuple(names), _maker(model, target, converter, sources, name))
    return found


def _matches(checkpoint: Checkpoint, model: nn.Module, taken: Collection[str]) -> Iterator[tuple[str, Any, Sources]]:
    """What a conversion makes first, the conversion, and what it is made of; as transformers look for them."""
    converters = transforms(model, "WeightConverter")
    if not converters:
        return
    from transformers.core_model_loading import dot_natural_key, rename_source_key

    renamings, state = transforms(model, "WeightRenaming"), model.state_dict()
    prefix = getattr(model, "base_model_prefix", "")
    known = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    found: dict[str, tuple[Any, dict[str, list[str]]]] = {}
    for disk in sorted(checkpoint.tensors, key=dot_natural_key):
        target, pattern = rename_source_key(disk, renamings, converters, prefix, state)
        if pattern is not None and disk not in taken and target in state:
            _, sources = found.setdefault(target, (known[pattern], {}))
            sources.setdefault(pattern, []).append(disk)
    for target, (converter, sources) in found.items():
        yield target, converter, sources


def _convert(
    model: nn.Module, target: str, converter: Any, sources: Sources, read: Callable[[str], Tensor]
) -> dict[str, Tensor]:
    converter = deepcopy(converter)  # it collects what it converts
    for pattern, names in sources.items():
        for name in names:
            converter.add_tensor(target, name, pattern, read(name))
    made = converter.convert(target, model=model, config=model.config)
    return {name: tensor[0] if isinstance(tensor, list) else tensor for name, tensor in made.items()}


def _maker(model: nn.Module, target: str, converter: Any, sources: Sources, name: str) -> Callable[[Read], Tensor]:
    # `contiguous` also so that what else was made along with it is freed
    return lambda read: _convert(model, target, converter, sources, read)[name].contiguous().clone()
