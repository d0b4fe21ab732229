"""Operators whose result hangs on values: where a mask is true, whether all of it is."""

from __future__ import annotations

from torch import Tensor

from compress.graph.axes import Node
from compress.graph.record import Recorder, pinned, rule

WHERE = "the positions where a mask over it is true are looked up"


@rule("nonzero", "masked_select")
def positions(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """How many there are no axis says."""
    for operand in args[:2]:
        if isinstance(operand, Tensor):
            for node in recorder.dims(operand):
                node.pin(WHERE)
    recorder.bind(output, pinned(output.shape, WHERE))


@rule("_is_all_true", "_is_any_true")
def whether(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """A single truth; what python does with it is its own matter."""
    recorder.bind(output, [Node(n) for n in output.shape])
