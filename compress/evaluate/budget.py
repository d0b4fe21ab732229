"""Seconds that measuring may take."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST_SECONDS, SHARE = 20.0, 0.5
"""Measuring takes no more than 20 s, or half the time of what is measured where that is longer."""


class Budget:
    """`seconds` from now on by `clock`; None is without end."""

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._seconds, self._start = clock, seconds, clock()

    @property
    def limited(self) -> bool:
        """Whether it has an end."""
        return self._seconds is not None

    @property
    def left(self) -> float:
        """Seconds; negative when more have been spent."""
        return float("inf") if self._seconds is None else self._seconds - (self._clock() - self._start)

    def holds(self, share: float) -> bool:
        """Whether less than this share of it has been spent."""
        return self._seconds is None or self.left > (1 - share) * self._seconds


def quick(spent: float) -> float:
    """The seconds that measuring may take after `spent` seconds of work."""
    return max(LEAST_SECONDS, SHARE * spent)
