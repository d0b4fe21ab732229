"""A model and variants of it in one pass: each block is loaded once, and what variants have in common runs once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from compress.errors import ModelError
from compress.inputs.batch import Batch
from compress.model.weights import Weights
from compress.stream.baton import Walk
from compress.stream.stream import Stream, StreamCallbacks


@dataclass(frozen=True)
class Variant:
    """A model that differs from another one in the blocks `changed`, and lacks the blocks `gone`.

    `inside(block, module)`: a context in which the loaded block is the variant's.
    """

    changed: frozenset[str]
    inside: Callable[[str, nn.Module], AbstractContextManager[Any]]
    gone: frozenset[str] = frozenset()


class Variants(Stream):
    """A stream of a model and its `variants`: every batch goes through each of them.

    Up to its first block of its own a variant is given what the model itself computed. `compared(number, output,
    other, batch)` is told what the model and the `number`-th variant put out, batch by batch. `leave(block)` is called
    when all are through a block. Raises ModelError where a block that is gone would have to give more than hidden
    states.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Weights,
        blocks: Iterable[str],
        *,
        variants: Sequence[Variant],
        compared: Callable[[int, Any, Any, Batch], None],
        leave: Callable[[str], None] | None = None,
        **options: Any,
    ) -> None:
        callbacks = StreamCallbacks(end=lambda output, batch: None, leave=leave)
        super().__init__(model, weights, blocks, callbacks, **options)
        self.variants, self.compared = variants, compared
        self._apart: set[int] = set()  # walks that have come by a block of their variant's own
        self._outputs: dict[int, tuple[Any, int]] = {}  # batch → the model's output, and how many wait for it

    def run(self, batches: Sequence[Batch]) -> None:
        """Raises what `Stream.run` does."""
        self._apart.clear()
        super().run([batch for batch in batches for _ in range(1 + len(self.variants))])

    def pass_through(self, station: str, walks: list[Walk]) -> None:
        if station not in self.blocks:
            super().pass_through(station, walks)
            return
        found: dict[int, Any] = {}
        shared: dict[int, Any] = {}  # batch → what the model itself gives
        for variant in range(-1, len(self.variants)):
            own = [walk for walk in walks if self._place(walk)[1] == variant]
            with self._as(variant, station):
                for walk in own:
                    found[walk.number] = self._through(walk, station, shared)
        shared.clear()
        for walk in walks:
            self.proceed(walk, found.pop(walk.number))
        if self.callbacks.leave is not None:
            self.callbacks.leave(station)

    def end(self, walk: Walk) -> None:
        batch, variant = self._place(walk)
        if variant < 0:
            self._outputs[batch] = walk.output, len(self.variants)
        else:
            output, waiting = self._outputs.pop(batch)
            self.compared(variant, output, walk.output, walk.batch)
            if waiting > 1:
                self._outputs[batch] = output, waiting - 1
        walk.output = None

    def _place(self, walk: Walk) -> tuple[int, int]:
        """A walk's batch and variant, -1 where it is the model's own."""
        batch, number = divmod(walk.number, 1 + len(self.variants))
        return batch, number - 1

    def _as(self, variant: int, block: str) -> AbstractContextManager[Any]:
        if variant < 0 or block not in self.variants[variant].changed:
            return nullcontext()
        return self.variants[variant].inside(block, self.model.get_submodule(block))

    def _through(self, walk: Walk, block: str, shared: dict[int, Any]) -> Any:
        """What a block gives for one batch."""
        batch, variant = self._place(walk)
        if variant >= 0:
            if block in self.variants[variant].gone:
                self._apart.add(walk.number)
                return self._past(walk, shared.get(batch))
            if block in self.variants[variant].changed:
                self._apart.add(walk.number)
            if walk.number not in self._apart:
                return tree_map(_copy, shared[batch])
            return self.execute(walk)
        output = self.execute(walk)
        # What goes on may be changed in place.
        shared[batch] = tree_map(_copy, output) if self.variants else None
        return output

    def _past(self, walk: Walk, given: Any) -> Any:
        """What comes out where there is no block."""
        call = walk.call
        assert call is not None
        if not isinstance(given, Tensor):
            raise ModelError(f"{call.station}: gives more than hidden states, so its removal cannot be tried out")
        return call.args[0] if call.args else next(iter(call.kwargs.values()))


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
