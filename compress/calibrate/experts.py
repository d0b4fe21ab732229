"""Experts seen one by one: a stand-in for the fused forward that tells what each expert is given and gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from compress.errors import ModelError


class Visit(NamedTuple):
    """What one expert did with the tokens routed to it, `[n]` of them."""

    expert: int
    given: Tensor  # [n, hidden]
    inner: Tensor  # [n, intermediate], what the down projection is given
    output: Tensor  # [n, hidden], before the router's weight
    gate: Tensor  # [n]
    tokens: Tensor  # [n], their numbers


Tell = Callable[[nn.Module, Tensor, Tensor, list[Visit]], None]
"""`(module, chosen experts [tokens, k], their weights [tokens, k], visits)`; called once per batch."""


def watch(module: nn.Module, tell: Tell) -> Callable[[], None]:
    """Run a module of stacked experts expert by expert from now on, telling; returns what undoes it.

    It computes what transformers' own implementations do (eager, grouped and batched products), whichever of them is
    set. Several may be told of one module, who came last is undone first. Raises ModelError for stacks that are laid
    out in another way.
    """
    told: list[Tell] | None = getattr(module.forward, "told", None)
    if told is not None:
        told.append(tell)
        return lambda: told.remove(tell)
    everyone = [tell]

    def forward(states: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        result, visits = torch.zeros_like(states), []
        for tokens, visit in visited(module, states, index, weights):
            result.index_add_(0, tokens, (visit.output * visit.gate[:, None]).to(result.dtype))
            visits.append(visit)
        for one in everyone:
            one(module, index, weights, visits)
        return result

    undo = replace(module, forward)
    module.forward.told = everyone  # pyright: ignore[reportFunctionMemberAccess]
    return undo


Forward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(states [tokens, hidden], chosen experts [tokens, k], their weights [tokens, k])` → `[tokens, hidden]`."""


def replace(module: nn.Module, forward: Forward) -> Callable[[], None]:
    """Have a module of stacked experts run `forward` instead of its own; returns what undoes it.

    Raises ModelError for a module that transformers' interface to experts does not describe.
    """
    if not all(hasattr(module, name) for name in ("down_proj", "is_transposed", "has_bias", "has_gate")):
        raise ModelError(f"{type(module).__name__} is no stack of experts that transformers' interface describes")

    def flat(hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        k = top_k_index.shape[-1]
        states = hidden_states.reshape(-1, hidden_states.shape[-1])
        return forward(states, top_k_index.reshape(-1, k), top_k_weights.reshape(-1, k)).view_as(hidden_states)

    before = vars(module).get("forward")  # set by an earlier replacement, or by who else replaces forwards
    module.forward = flat

    def undo() -> None:
        if before is None:
            del module.forward
        else:
            module.forward = before

    return undo


def visited(
    module: nn.Module, states: Tensor, index: Tensor, weights: Tensor, kept: Tensor | None = None
) -> Iterator[tuple[Tensor, Visit]]:
    """What each expert does with the tokens (their numbers come first) that chose it, of choices `kept` `[tokens, k]`.

    Experts that nobody visits are left out.
    """
    pairs = torch.arange(index.numel(), device=index.device) if kept is None else kept.reshape(-1).nonzero()[:, 0]
    chosen, order = index.reshape(-1)[pairs].sort()
    order = pairs[order]
    experts, counts = chosen.unique_consecutive(return_counts=True)
    gates = weights.reshape(-1)[order]
    start = 0
    for expert, count in zip(experts.tolist(), counts.tolist(), strict=True):
        cut = slice(start, start + count)
        start += count
        tokens = order[cut] // index.shape[-1]
        given = states[tokens]
        first = "gate_up" if module.has_gate else "up"
        inner = _project(module, first, expert, given)
        inner = module._apply_gate(inner) if module.has_gate else module.act_fn(inner)  # pyright: ignore[reportCallIssue]
        output = _project(module, "down", expert, inner)
        if getattr(module, "has_post_expert_norm", False):
            output = module.post_expert_norm(output)  # pyright: ignore[reportCallIssue]
        yield tokens, Visit(expert, given, inner, output, gates[cut], tokens)


def _project(module: nn.Module, name: str, expert: int, x: Tensor) -> Tensor:
    weight = getattr(module, f"{name}_proj")[expert]
    bias = getattr(module, f"{name}_proj_bias")[expert] if module.has_bias else None
    return torch.nn.functional.linear(x, weight.T if module.is_transposed else weight, bias)
