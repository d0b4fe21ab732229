"""The stages of a run: listed at its start, each announced when it begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from compress.console import say, switches, working

DOING = {
    "read": "reading the model",
    "calibrate": "calibrating",
    "decide": "deciding",
    "cut": "cutting",
    "zero": "zeroing weights",
    "write": "writing",
    "verify": "verifying",
    "evaluate": "evaluating",
    "export": "exporting",
    "report": "writing the report",
}
"""What is done in a stage."""


class Stages:
    """`before`, the stages of each of `steps`, and `after`, in this order; says so on being made.

    A stage that is entered without having been listed passes without a word.
    """

    def __init__(self, before: Sequence[str] = (), steps: Sequence[Sequence[str]] = (), after: Sequence[str] = ()):
        several = len(steps) > 1
        inside = [(f"step {i}: " if several else "", name) for i, step in enumerate(steps, 1) for name in step]
        self._all = [*(("", name) for name in before), *inside, *(("", name) for name in after)]
        self._next = 0
        groups = [f"step {i} ({' · '.join(step)})" if several else " · ".join(step) for i, step in enumerate(steps, 1)]
        if self._all and switches.progress:
            say(f"stages: {' · '.join(filter(None, (*before, *groups, *after)))}")

    def behind(self, step: int) -> None:
        """Go on behind the stages of the first `step` steps, which are finished already."""
        own = [i for i, (prefix, _) in enumerate(self._all, 1) if prefix == f"step {step}: "]
        self._next = max([self._next, *own])

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """In the stage `name`; one that was left is entered again without being announced again."""
        if self._next and self._all[self._next - 1][1] == name:
            number = self._next
        else:
            number = next(
                (i for i, (_, own) in enumerate(self._all[self._next :], self._next + 1) if own == name), None
            )
            if number is None:
                yield
                return
            self._next = number
            if switches.progress:
                say(f"[{number}/{len(self._all)}] {self._all[number - 1][0]}{DOING[name]} …")
        with working(self._all[number - 1][0] + DOING[name]):
            yield
