"""Forwards that pause where asked: one thread each, of which exactly one runs at a time.

`model.forward` stays unmodified Python, so it cannot be cut in pieces; but a thread in the middle of it can wait. At a
module that was made a *station* the thread hands over the call and sleeps; the scheduler runs the module whenever it
suits, in the scheduler's own thread, and wakes the thread with the result, or has the thread run it. Whatever lies
between stations runs in the batch's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compress.inputs.batch import Batch, given, rows

OWN = object()
"""The reply that has a waiting thread run the module itself."""


class Cancelled(BaseException):
    """Raised inside a waiting forward to end its thread; models that catch Exception do not catch it."""


@dataclass
class Call:
    """A module's forward, asked for by a waiting thread."""

    station: str
    forward: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    grad: bool


class Walk(threading.Thread):
    """The forward of the `number`-th batch of `rows` samples, what is given of it as keyword arguments of `model`."""

    def __init__(
        self,
        model: Callable[..., Any],
        batch: Batch,
        back: threading.Semaphore,
        grad: bool,
        number: int = 0,
    ) -> None:
        super().__init__(daemon=True)
        self.batch, self.number = batch, number
        self.rows = rows(batch)
        self.call: Call | None = None
        self.output: Any = None
        self.error: BaseException | None = None
        self.finished = False
        self._model, self._back, self._grad = model, back, grad
        self._go = threading.Semaphore(0)
        self._reply: Any = None
        self._cancelled = False

    def run(self) -> None:
        self._go.acquire()
        try:
            if not self._cancelled:
                with torch.set_grad_enabled(self._grad):
                    self.output = self._model(**given(self.batch))
        except Cancelled:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.finished = True
            self._back.release()

    def ask(self, call: Call) -> Any:
        """In this thread: wait until the scheduler has run the call."""
        self.call = call
        del call
        self._back.release()
        self._go.acquire()
        if self._cancelled:
            raise Cancelled
        reply, self._reply = self._reply, None
        return reply

    def advance(self, reply: Any = None) -> None:
        """In the scheduler: run on to the next station, or to the end. Raises what the model's code raised."""
        self.call, self._reply = None, reply
        del reply
        if self.ident is None:
            self.start()
        self._go.release()
        self._back.acquire()
        if self.error is not None:
            raise self.error

    def cancel(self) -> None:
        """In the scheduler: end the thread; a no-op for one that has ended."""
        self.call, self._cancelled = None, True
        if self.ident is not None:
            self._go.release()
            self.join(timeout=10)


class Stations:
    """Makes modules of `model` pause the threads that call them, while in use as a context."""

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self._modules = {name: model.get_submodule(name) for name in names}

    def __enter__(self) -> Stations:
        self._own = {name: vars(module).get("forward") for name, module in self._modules.items()}
        for name, module in self._modules.items():
            module.forward = _pausing(name, module.forward)
        return self

    def __exit__(self, *_: object) -> None:
        for name, module in self._modules.items():
            vars(module).pop("forward", None)
            if (own := self._own[name]) is not None:
                module.forward = own


def _pausing(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    def paused(*args: Any, **kwargs: Any) -> Any:
        walk = threading.current_thread()
        if not isinstance(walk, Walk):
            return forward(*args, **kwargs)
        reply = walk.ask(Call(name, forward, args, kwargs, torch.is_grad_enabled()))
        return forward(*args, **kwargs) if reply is OWN else reply

    paused.__wrapped__ = forward  # pyright: ignore[reportFunctionMemberAccess] # so that its signature is found
    return paused
