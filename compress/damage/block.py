"""A loaded block as if some of its groups were gone: zeros where they were, what reads them repaired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from compress.graph.projection import added, projection
from compress.model.model import Model
from compress.output_format.find import bias_name, repaired_weights
from compress.surgery.cut import Repair
from compress.surgery.hidden_experts import hide_experts

Kept = Mapping[str, np.ndarray]


def prune_block(source: Model, block: str, module: nn.Module, kept: Kept, repair: Repair | None) -> None:
    """Give the loaded block the weights that leave only `kept` of its families (bool `[size]` each) at work.

    Computes what the cut will leave, for kinds of groups whose absence zeros stand for: all but experts.
    """
    with torch.no_grad():
        for name, tensor in pruned_tensors(source, block, module, kept, repair).items():
            owner, own = _place(block, module, name)
            present = getattr(owner, own, None)
            if present is None:
                owner.register_parameter(own, nn.Parameter(tensor, requires_grad=False))
            else:
                present.copy_(tensor)


@contextmanager
def pruned_block(source: Model, model: nn.Module, block: str, kept: Kept, repair: Repair | None) -> Iterator[None]:
    """The loaded block of `model` without what is not `kept`, experts among it; as it was afterwards."""
    graph, module = source.graph, model.get_submodule(block)
    with ExitStack() as stack, torch.no_grad():
        plain = {name: mask for name, mask in kept.items() if graph.families[name].kind != "experts"}
        for name, tensor in pruned_tensors(source, block, module, plain, repair).items():
            owner, own = _place(block, module, name)
            if own in owner._buffers:
                stack.callback(owner._buffers.__setitem__, own, owner._buffers[own])
                owner._buffers[own] = tensor
                continue
            stack.callback(owner._parameters.__setitem__, own, owner._parameters.get(own))
            owner._parameters[own] = nn.Parameter(tensor, requires_grad=False)
        for name in kept.keys() - plain.keys():
            stack.callback(hide_experts(model, graph, graph.families[name], kept[name]))
        yield


def pruned_tensors(
    source: Model, block: str, module: nn.Module, kept: Kept, repair: Repair | None
) -> dict[str, Tensor]:
    """Those of a loaded block's parameters that differ once only `kept` is left, in their shapes, by state name."""
    graph, found = source.graph, dict[str, Tensor]()
    if repair is not None:
        for name, member in repaired_weights(source, kept).items():
            weight, turned = _inside(block, module, name), projection(graph, name, member.dim)
            place, sign = added(graph, name) or (bias_name(name), 1.0)
            bias = _inside(block, module, place)
            assert weight is not None
            keep = torch.from_numpy(turned.spread(graph.masks(name, kept)[member.dim]))
            matrix = turned.matrix(weight).float().cpu()
            new, vector = repair(name, matrix, None if bias is None else sign * bias.float().cpu(), keep)
            found[name] = turned.stored(new).to(weight)
            if vector is not None:
                found[place] = (sign * vector).to(weight)
    for name in dict.fromkeys(member.tensor for family in kept for member in graph.families[family].members):
        tensor = found.get(name)
        if tensor is None:
            held = _inside(block, module, name)
            assert held is not None
            tensor = held.clone()
        for dim, mask in graph.masks(name, kept).items():
            tensor.index_fill_(dim, torch.from_numpy(np.flatnonzero(~mask)).to(tensor.device), 0)
        found[name] = tensor
    return found


def _place(block: str, module: nn.Module, name: str) -> tuple[nn.Module, str]:
    parent, _, own = name[len(block) + 1 :].rpartition(".")
    return module.get_submodule(parent), own


def _inside(block: str, module: nn.Module, name: str) -> Tensor | None:
    owner, own = _place(block, module, name)
    return getattr(owner, own, None)
