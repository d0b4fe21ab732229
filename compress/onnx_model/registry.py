"""The operators that can be run in torch: one small function each, found by its name in the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compress.onnx_model.file import Node

Run = Callable[..., Any]


@dataclass(frozen=True)
class Operator:
    """`run(node, *values)` gives the node's output, or a tuple where there are several.

    Its values are tensors, but those at the places `numbers` arrays of plain numbers (sizes, axes), and those left out
    None.
    """

    run: Run
    numbers: frozenset[int]


OPERATORS: dict[tuple[str, str], Operator] = {}


def operator(*kinds: str, numbers: tuple[int, ...] = (), domain: str = "") -> Callable[[Run], Run]:
    """Register how operators of these names are run; `numbers` are the operands that are wanted as numbers."""

    def register(run: Run) -> Run:
        for kind in kinds:
            OPERATORS[domain, kind] = Operator(run, frozenset(numbers))
        return run

    return register


def operator_of(node: Node) -> Operator | None:
    """How a node is run in torch, None where that is not known."""
    return OPERATORS.get((node.domain, node.kind))
