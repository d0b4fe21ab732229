"""Torch-Pruning 1.6.1 on any module: the same share of the outputs of some modules, by its criteria."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

CRITERIA = {
    "magnitude": "GroupMagnitudeImportance",
    "batch norm scale": "BNScaleImportance",
    "taylor": "GroupTaylorImportance",
    "hessian": "GroupHessianImportance",
}


def prune(
    dense: nn.Module,
    known: Sequence[tuple[Any, Any]],
    loss: Callable[[Any, Any], Tensor],
    inner: Sequence[str],
    share: float,
    criterion: str,
) -> nn.Module:
    """A copy of `dense` without a share of the outputs of each module that `inner` names. It repairs nothing.

    `known` are what the forward is called with and a target, which `loss` compares with the output. Raises what the
    library does where it cannot.
    """
    import torch_pruning as tp  # pyright: ignore[reportMissingImports]

    model = copy.deepcopy(dense)
    importance = getattr(tp.importance, CRITERIA[criterion])()
    if criterion == "hessian":
        importance.zero_grad()
        for inputs, targets in known:
            for i in range(len(targets)):
                loss(_called(model, inputs, i), targets[i : i + 1]).backward()
                importance.accumulate_grad(model)
                model.zero_grad(set_to_none=False)
    if criterion == "taylor":
        for inputs, targets in known:
            loss(_called(model, inputs), targets).backward()
    wanted = [model.get_submodule(name) for name in inner]

    pruner = tp.pruner.BasePruner(
        model,
        example_inputs=_first(known[0][0]),
        importance=importance,
        pruning_ratio=share,
        ignored_layers=[
            one for one in model.modules() if isinstance(one, (nn.Linear, nn.Conv1d, nn.Conv2d)) and one not in wanted
        ],
        output_transform=lambda output: output if isinstance(output, Tensor) else output[0],
    )
    before = sum(one.numel() for one in model.parameters())
    pruner.step()
    if sum(one.numel() for one in model.parameters()) == before:
        raise RuntimeError("Torch-Pruning removed nothing")
    return model.eval()


def _called(model: nn.Module, inputs: Any, place: int | None = None) -> Any:
    """The output for a batch, or for one sample of it."""
    cut = slice(None) if place is None else slice(place, place + 1)
    if isinstance(inputs, dict):
        return model(**{name: tensor[cut] for name, tensor in inputs.items()})
    return model(inputs[cut])


def _first(inputs: Any) -> Any:
    """The first sample."""
    return {name: tensor[:1] for name, tensor in inputs.items()} if isinstance(inputs, dict) else inputs[:1]
