"""All batches through a model larger than memory: block after block, one block's weights at a time.

The model's own forward runs unmodified, once per batch, each in a thread that pauses at every block (`baton`). When
all batches wait at a block, it is loaded, run for each of them, and freed. Which block comes next is what the threads
ask for, so a block may be visited several times (ALBERT) and there may be several stacks (T5). Large modules outside of
blocks (embeddings, heads) are loaded and freed likewise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph.ends import embeddings
from compress.inputs.batch import Batch
from compress.model.weights import Weights
from compress.stream.baton import OWN, Call, Stations, Walk
from compress.stream.memory import one_arena, trim

LARGE = 4_000_000
"""Parameters from which on a module outside of blocks does not stay in memory."""


@dataclass
class StreamCallbacks:
    """What is called as a stream runs; every field may be left out.

    `turn(walk)`: what runs from now on is this batch's.

    `inside`: block → projections in it at which all batches wait for each other; `arrive(projection, module, inputs)`
    and `change` are then called with each of them, before any batch goes through it, and `visit` and `change` not with
    the block: one run is enough. `inputs` are the batches', in pairs with their walks.

    `visit(block, call, output)`: one batch went through a block. `leave(block)`: all batches did. `change(block,
    module)` comes after that: the weights are still loaded and may be changed, then the block is run again (between
    `pause(True)` and `pause(False)`), and that output flows on. `end(output, batch)`: a batch's forward is complete;
    without it, forwards end before the model's output embeddings, which saves the time and memory of the logits.
    """

    visit: Callable[[str, Call, Any], None] | None = None
    leave: Callable[[str], None] | None = None
    change: Callable[[str, nn.Module], None] | None = None
    end: Callable[[Any, Batch], None] | None = None
    pause: Callable[[bool], None] = lambda stopped: None
    turn: Callable[[Walk], None] = lambda walk: None
    arrive: Callable[[str, nn.Module, list[tuple[Tensor, Walk]]], None] = lambda projection, module, inputs: None
    inside: Mapping[str, frozenset[str]] = field(default_factory=dict)


class Stream:
    """Runs batches through `model` (parameters on meta) with the weights of one of `blocks` in memory at a time.

    Floating weights are computed in `dtype`. Modules outside of blocks with more than `large` parameters come and go.
    What is loaded already stays. `forward`: what is done with each batch in place of the model's own forward, which may
    run the model several times.
    """

    grad = False

    def __init__(
        self,
        model: nn.Module,
        weights: Weights,
        blocks: Iterable[str],
        callbacks: StreamCallbacks,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        large: int = LARGE,
        forward: Callable[..., Any] | None = None,
    ) -> None:
        self.model, self.weights, self.callbacks = model, weights, callbacks
        self._forward = forward or model
        self.dtype, self.device = dtype, torch.device(device)
        self.blocks = frozenset(blocks)
        self._loaded, self._owned = "", list[str]()  # the station in memory, and what it brought
        leaves = _leaves(model, self.blocks)
        large_ones = {name for name in leaves if _count(model.get_submodule(name)) > large}
        self._last = None if callbacks.end else _output_embeddings(model)
        self._lazy = large_ones | ({self._last} if self._last else set())
        self._inline = leaves - self._lazy
        self._within = {name: block for block, names in callbacks.inside.items() for name in names}

    def run(self, batches: Sequence[Batch]) -> None:
        """One forward per batch; what was loaded is back on the meta device afterwards, also after an error.

        A batch's `labels` are not given to the model. Raises what the model's code or a watcher raises.
        """
        one_arena()
        back = threading.Semaphore(0)
        here = [{name: tensor.to(self.device) for name, tensor in batch.items()} for batch in batches]
        walks = [Walk(self._forward, batch, back, self.grad, number) for number, batch in enumerate(here)]
        for module in self.model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and not buffer.is_meta:
                    module._buffers[name] = buffer.to(self.device)
        with ExitStack() as stack:
            stack.callback(trim)
            rest = self.load(self.weights.outside(self.blocks | self._lazy))
            stack.callback(self.weights.unload_names, rest)
            stack.callback(self.leave)
            stack.enter_context(Stations(self.model, self.blocks | self._lazy | self._inline | self._within.keys()))
            stack.callback(lambda: [walk.cancel() for walk in walks])
            for walk in walks:
                self.proceed(walk)
            while waiting := [walk for walk in walks if walk.call is not None]:
                station = waiting[0].call.station  # pyright: ignore[reportOptionalMemberAccess]
                group = [walk for walk in waiting if walk.call is not None and walk.call.station == station]
                if station == self._last:
                    for walk in group:
                        walk.cancel()
                elif station in self._within:
                    self.wait_inside(station, group, waiting)
                else:
                    self.enter(station)
                    self.pass_through(station, group)
            self.finish()

    def pass_through(self, station: str, walks: list[Walk]) -> None:
        """Run the loaded station for the batches that wait at it; each then goes on to its next one."""
        block, again = station in self.blocks, self.callbacks.change is not None
        if station in self.callbacks.inside:
            for walk in walks:
                self.proceed(walk, OWN)
            return
        for walk in walks:
            if not block:
                self.proceed(walk, self.execute(walk))
            elif again:
                self.visit(walk)
            else:
                self.proceed(walk, self.visit(walk))
        if block and self.callbacks.leave is not None:
            self.callbacks.leave(station)
        if block and self.callbacks.change is not None:
            self.callbacks.change(station, self.model.get_submodule(station))
            for walk in walks:
                self.proceed(walk, self._again(walk))

    def wait_inside(self, station: str, walks: list[Walk], waiting: list[Walk]) -> None:
        """All batches wait at a projection inside the block in memory: change it, and let them through.

        Raises ModelError where some of them are elsewhere, as what they give it would be missing.
        """
        if len(walks) < len(waiting):
            raise ModelError(
                f"{station}: some samples do not go through it; take `propagate: pruned`, block after block"
            )
        assert self.callbacks.change is not None
        module = self.model.get_submodule(station)
        self.callbacks.arrive(station, module, [(_first(walk.call), walk) for walk in walks])
        self.callbacks.change(station, module)
        trim()  # as what other projections' batches leave free, this one's do not fit into
        for walk in walks:
            self.proceed(walk, self.execute(walk))

    def _again(self, walk: Walk) -> Any:
        self.callbacks.pause(True)
        try:
            return self.execute(walk)
        finally:
            self.callbacks.pause(False)

    def visit(self, walk: Walk) -> Any:
        """Run a block for one batch, and tell."""
        call = walk.call
        assert call is not None
        output = self.execute(walk)
        if self.callbacks.visit is not None:
            self.callbacks.visit(call.station, call, output)
        return output

    def execute(self, walk: Walk) -> Any:
        """Run what the batch's thread asks for."""
        call = walk.call
        assert call is not None
        self.callbacks.turn(walk)
        with torch.set_grad_enabled(call.grad):
            return call.forward(*call.args, **call.kwargs)

    def proceed(self, walk: Walk, reply: Any = None) -> None:
        """Let a batch's thread go on, with the result of what it asked for, to its next station or to its end."""
        self.callbacks.turn(walk)
        walk.advance(reply)
        del reply
        while self.at_once(walk):
            walk.advance(self.execute(walk))
        if walk.finished:
            self.end(walk)

    def at_once(self, walk: Walk) -> bool:
        """Whether what a batch's thread asks for needs neither other weights nor other batches."""
        return walk.call is not None and walk.call.station in self._inline

    def end(self, walk: Walk) -> None:
        """A forward is complete."""
        if self.callbacks.end is not None:
            self.callbacks.end(walk.output, walk.batch)
        walk.output = None

    def finish(self) -> None:
        """All forwards are complete."""

    def enter(self, station: str) -> None:
        """Have the weights of `station` in memory instead of those of the one before."""
        if station != self._loaded:
            self.leave()
            self._owned = self.load(self.weights.names(station))
            self._loaded = station

    def leave(self) -> None:
        """Free the weights of the station in memory."""
        self.weights.unload_names(self._owned)
        if self._loaded in self.callbacks.inside and self.callbacks.leave is not None:
            self.callbacks.leave(self._loaded)
        if self._loaded:
            trim()
        self._loaded, self._owned = "", []

    def load(self, names: Iterable[str]) -> list[str]:
        """Load tensors that are not in memory yet; returns which."""
        return list(self.weights.load_names(names, self.dtype, self.device))


def _first(call: Call | None) -> Tensor:
    """What a waiting projection is given."""
    assert call is not None
    return call.args[0] if call.args else next(iter(call.kwargs.values()))


def _leaves(model: nn.Module, blocks: Iterable[str]) -> set[str]:
    """Names of the modules outside of blocks that hold parameters and have no submodules."""
    prefixes = tuple(block + "." for block in blocks)
    return {
        name
        for name, module in model.named_modules()
        if next(module.children(), None) is None
        and next(module.parameters(recurse=False), None) is not None
        and not f"{name}.".startswith(prefixes)
    }


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _output_embeddings(model: nn.Module) -> str | None:
    """Name of the module that makes logits, None where there is none."""
    head = embeddings(model, "output")
    return next((name for name, module in model.named_modules() if module is head), None) if head is not None else None
