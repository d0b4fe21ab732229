"""Signals that ask the process to end: they unwind the stack, and wait while files change their names."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]

Handler = Callable[[int, FrameType | None], object]


class Ended(SystemExit):
    """The process was asked to end by the signal `number`; its exit code says so, as a shell's does."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number, self.name = number, signal.Signals(number).name


@contextmanager
def ending_raises() -> Iterator[None]:
    """A polite request to end raises `Ended`, as Ctrl-C does KeyboardInterrupt, instead of stopping the process where
    it stands. What the caller handles or ignores (`nohup`) stays as it is."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    with _handling([number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL], end):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals wait until the block is done."""
    waiting: list[int] = []
    with _handling([signal.SIGINT, *ENDING], lambda number, frame: waiting.append(number)):
        yield
    for number in waiting[:1]:
        signal.raise_signal(number)


@contextmanager
def _handling(signals: list[signal.Signals], handler: Handler) -> Iterator[None]:
    """Only the main thread may set handlers, and only it is interrupted; elsewhere nothing needs doing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals if signal.getsignal(number) is not None}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
