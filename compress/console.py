"""What the user sees: progress and messages on stderr, the result on stdout.

One rich console each. Bars are drawn on a terminal; elsewhere progress is a plain line now and then. Whatever runs for
long without saying anything gets such a line too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")

EVERY = 5.0
"""Seconds between two plain progress lines of one task."""

SILENCE = 5.0
"""Seconds without a line after which what runs says that it does, where there is no terminal."""

console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)  # `cpu:-1:` is a place
output = Console(highlight=False, soft_wrap=True, emoji=False)


@dataclass
class Switches:
    """How much is said: `quiet` only warnings and errors, `verbose` details too, `json` the result as JSON."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False

    @property
    def progress(self) -> bool:
        """Whether progress is shown."""
        return not (self.quiet or self.json)


switches = Switches()


def switch(*, quiet: bool = False, verbose: bool = False, json: bool = False) -> None:
    """Set for the rest of the process how much is said."""
    switches.quiet, switches.verbose, switches.json = quiet, verbose, json


def say(text: str) -> None:
    """A message of ordinary interest."""
    global _said
    if not switches.quiet:
        _said = time.monotonic()
        console.print(text, markup=False)


def detail(text: str) -> None:
    """A message for `-v` only."""
    if switches.verbose:
        console.print(text, markup=False, style="dim")


def warn(text: str) -> None:
    """Something that the user should know even when quiet."""
    console.print(f"warning: {text}", markup=False, style="yellow")


def complain(text: str) -> None:
    """An error, as it is shown just before the command ends; bars that it cut short are taken away."""
    if _drawn:
        _drawn[0].stop()
    console.print(f"error: {text}", markup=False, style="red")


def result(shown: Any, data: Any) -> None:
    """The command's result on stdout: `data` as JSON under `--json`, else `shown` (text or anything rich can draw)."""
    if switches.json:
        print(json.dumps(data, indent=2, ensure_ascii=False), flush=True)
    else:
        output.print(shown, markup=False) if isinstance(shown, str) else output.print(shown)


def track(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Iterate over `items` and show how far it is."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # pyright: ignore[reportArgumentType]
    with task(label, total) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def task(label: str, total: float | None = None) -> Iterator[Callable[..., None]]:
    """Show one task's progress; yields `advance(amount=1)`. Tasks may nest and may be advanced from any thread."""
    if not switches.progress:
        yield lambda amount=1: None
    elif console.is_terminal and not console.is_dumb_terminal:
        with _bars() as bars:
            bar = bars.add_task(label, total=total)
            try:
                yield lambda amount=1: bars.advance(bar, amount)
            finally:
                bars.remove_task(bar)
    else:
        with _running(_Lines(label, total)) as lines:
            yield lines.advance
        lines.end()


@contextmanager
def working(label: str) -> Iterator[None]:
    """Around what cannot say how far it is: shows that it runs, where that takes long."""
    if not switches.progress:
        yield
    elif console.is_terminal and not console.is_dumb_terminal:
        with task(label):
            yield
    else:
        with _running(_Lines(label, None)):
            yield


def human_bytes(count: float) -> str:
    """`6.1 GB`; powers of ten, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """`8 s`, `3 min 20 s` or `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class _Lines:
    """Progress where there is no terminal."""

    def __init__(self, label: str, total: float | None) -> None:
        self.label, self.total, self.done = label, total, 0.0
        self.start = self.said = time.monotonic()

    def advance(self, amount: float = 1) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.said < EVERY:
            return
        self.tell()

    def tell(self) -> None:
        """How far it is, and how much time is left or, where that is not known, how long it has run."""
        self.said = time.monotonic()
        spent = self.said - self.start
        time_ = f"{human_seconds(spent)} so far"
        if self.total and self.done:
            time_ = f"{human_seconds(spent * max(self.total - self.done, 0) / self.done)} left"
        count = f"{self.done:g}/{self.total:g}, " if self.total else f"{self.done:g}, " if self.done else ""
        say(f"{self.label}: {count}{time_}")

    def end(self) -> None:
        say(f"{self.label}: done in {human_seconds(time.monotonic() - self.start)}")


_lines: list[_Lines] = []  # what runs, innermost last
_said = 0.0  # when the last line was


@contextmanager
def _running(lines: _Lines) -> Iterator[_Lines]:
    """Something that runs; the first of several nested ones starts the ticker, and stops it at its end."""
    first = not _lines
    _lines.append(lines)
    stop = Event()
    ticker = Thread(target=_tick, args=(stop,), name="progress", daemon=True)
    if first:
        ticker.start()
    try:
        yield lines
    finally:
        _lines.remove(lines)
        if first:
            stop.set()
            ticker.join()


def _tick(stop: Event) -> None:
    """Whenever nothing was said for a while, the innermost of what runs says how it stands."""
    started = time.monotonic()
    while not stop.wait(max(SILENCE - (time.monotonic() - max(_said, started)), 0.01)):
        if time.monotonic() - max(_said, started) >= SILENCE and (running := _lines[-1:]):
            running[0].tell()


_drawn: list[Any] = []  # the one live display and how many tasks are on it; rich draws no two at a time


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Standing(ProgressColumn):
        """How far, and how much time is left or, where that is not known, how long so far."""

        def render(self, task: Task) -> Text:
            count = f"{task.completed:g}/{task.total:g}, " if task.total else ""
            left = task.time_remaining if task.total else None
            time_ = f"{human_seconds(task.elapsed or 0)} so far" if left is None else f"{human_seconds(left)} left"
            return Text(count + time_)

    if not _drawn:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), Standing())
        _drawn.extend((Progress(*columns, console=console, transient=True), 0))
        _drawn[0].start()
    bars = _drawn[0]
    _drawn[1] += 1
    try:
        yield bars
    finally:
        _drawn[1] -= 1
        if not _drawn[1]:
            _drawn.clear()
            bars.stop()
