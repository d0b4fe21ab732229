"""What the user sees: progress and messages on stderr, the result on stdout.

One rich console each. Bars are drawn on a terminal; elsewhere progress is a plain line now and then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")

EVERY = 10.0
"""Seconds between two plain progress lines of one task."""

console = Console(stderr=True, highlight=False, soft_wrap=True)
output = Console(highlight=False, soft_wrap=True)


@dataclass
class Switches:
    """How much is said: `quiet` only warnings and errors, `verbose` details too, `json` the result as JSON."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False


switches = Switches()


def switch(*, quiet: bool = False, verbose: bool = False, json: bool = False) -> None:
    """Set for the rest of the process how much is said."""
    switches.quiet, switches.verbose, switches.json = quiet, verbose, json


def say(text: str) -> None:
    """A message of ordinary interest."""
    if not switches.quiet:
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
    if switches.quiet:
        yield lambda amount=1: None
    elif console.is_terminal and not console.is_dumb_terminal:
        with _bars() as bars:
            bar = bars.add_task(label, total=total)
            try:
                yield lambda amount=1: bars.advance(bar, amount)
            finally:
                bars.remove_task(bar)
    else:
        lines = _Lines(label, total)
        yield lines.advance
        lines.end()


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
        self.said = now
        text = f"{self.label}: {self.done:g}"
        if self.total:
            left = (now - self.start) * max(self.total - self.done, 0) / self.done if self.done else 0.0
            text = f"{self.label}: {self.done:g}/{self.total:g}, {human_seconds(left)} left"
        say(text)

    def end(self) -> None:
        say(f"{self.label}: done in {human_seconds(time.monotonic() - self.start)}")


_drawn: list[Any] = []  # the one live display and how many tasks are on it; rich draws no two at a time


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not _drawn:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        _drawn.extend((Progress(*columns, TimeRemainingColumn(), console=console, transient=True), 0))
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
