"""Names and parts on disk: which stored tensors a model's tensor is, alone or put together of several."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint


@dataclass(frozen=True)
class Piece:
    """One stored tensor that is part of a model's tensor: index `index` of its first dimension (an expert), and there
    the positions `start` to `stop` of dimension `dim` (gate or up of a fused projection)."""

    disk: str
    index: int
    dim: int
    start: int
    stop: int

    def of(self, whole: Tensor) -> Tensor:
        """Its place in the model's tensor `[experts, …]`, a view."""
        return whole[self.index].narrow(self.dim - 1, self.start, self.stop - self.start)

    def renumbered(self, index: int) -> str:
        """The stored name of the same part of another expert."""
        return re.sub(rf"(?<=\.experts\.){self.index}(?=\.)", str(index), self.disk, count=1)


def find_names(checkpoint: Checkpoint, model: nn.Module, state: Collection[str]) -> dict[str, str]:
    """State name → disk name, for what is stored; an exact name goes before a translated one."""
    found = {name: name for name in checkpoint.tensors if name in state}
    taken = set(found)
    renamings = transforms(model, "WeightRenaming")
    for disk in checkpoint.tensors:
        if disk in taken:
            continue
        for name in _candidates(disk, renamings, getattr(model, "base_model_prefix", "")):
            if name in state and name not in found:
                found[name] = disk
                break
    return found


def _candidates(disk: str, renamings: list, prefix: str) -> Iterator[str]:
    """Names that a stored tensor may have in the model: renamed by transformers' rules, with or without the prefix."""
    renamed = disk
    for renaming in renamings:
        renamed = renaming.rename_source_key(renamed)[0]
    for name in dict.fromkeys((disk, renamed)):
        yield name
        if prefix:
            yield f"{prefix}.{name}"
            yield name.removeprefix(f"{prefix}.")


def find_pieces(
    checkpoint: Checkpoint, model: nn.Module, shapes: Mapping[str, Sequence[int]], taken: Collection[str]
) -> dict[str, tuple[Piece, ...]]:
    """State name → the stored tensors that it is put together of, for those that no stored tensor is alone.

    transformers stack the experts of a block, and lay gate beside up, when they load; its own table of such
    conversions says how. Ones that do anything else to a tensor are left out.
    """
    converters = [item for item in transforms(model, "WeightConverter") if _stacks(item)]
    renamings, prefix = transforms(model, "WeightRenaming"), getattr(model, "base_model_prefix", "")
    parts: dict[str, dict[int, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))  # name, expert, source
    order: dict[str, list[str]] = {}
    for disk in checkpoint.tensors:
        number = re.search(r"\.experts\.(\d+)\.", disk)
        if disk in taken or number is None:
            continue
        for converter in converters:
            for candidate in _candidates(disk, renamings, prefix):
                name, source = converter.rename_source_key(candidate)
                if source is not None and name in shapes and len(shapes[name]) == 3:
                    parts[name][int(number[1])][source] = disk
                    order[name] = list(converter.source_patterns)
    found = {}
    for name, experts in parts.items():
        pieces, width = [], int(shapes[name][1]) // len(order[name])
        for index, own in sorted(experts.items()):
            for place, source in enumerate(order[name]):
                if source in own:
                    pieces.append(Piece(own[source], index, 1, place * width, (place + 1) * width))
        if len(pieces) == shapes[name][0] * len(order[name]):
            found[name] = tuple(pieces)
    return found


def put_together(pieces: Sequence[Piece], shape: Sequence[int], tensors: Iterator[Tensor]) -> Tensor:
    """The model's tensor of its pieces, in their dtype; one piece in memory beside it."""
    whole: Tensor | None = None
    for piece, tensor in zip(pieces, tensors, strict=True):
        if whole is None:
            whole = torch.empty(tuple(shape), dtype=tensor.dtype)
        piece.of(whole).copy_(tensor)
    assert whole is not None
    return whole


def _stacks(converter: Any) -> bool:
    """Whether it stacks a list of modules along the first dimension and concatenates along the second."""
    done = [(type(operation).__name__, getattr(operation, "dim", None)) for operation in converter.operations]
    return done in ([("MergeModulelist", 0)], [("MergeModulelist", 0), ("Concatenate", 1)])


def transforms(model: nn.Module, kind: str) -> list:
    """How transformers translate what older or other checkpoints of this model hold: renamings or conversions."""
    if not any(cls.__module__.startswith("transformers.") for cls in type(model).__mro__):
        return []  # without importing what takes seconds
    from transformers import core_model_loading
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.modeling_utils import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        return []
    return [item for item in get_model_conversion_mapping(model) if isinstance(item, getattr(core_model_loading, kind))]
