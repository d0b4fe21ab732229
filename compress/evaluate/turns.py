"""Two things timed in turns, so that what else the machine does meets both."""

from __future__ import annotations

from collections.abc import Callable

from compress.console import task
from compress.evaluate.budget import Budget

ROUNDS, LEAST, WARM_UP = 15, 6, 2

Timed = Callable[[], float]
"""Does something once, and returns the seconds that it took."""


def in_turns(
    one: Timed, other: Timed, budget: Budget, *, rounds: int = ROUNDS, label: str = "timing"
) -> tuple[list[float], list[float]] | None:
    """Seconds of both in each round: one then the other, next round the other first.

    There are `rounds` of them, or fewer, but six at least, when the budget is spent. None, after the rounds to warm
    up, when it does not hold six.
    """
    both: tuple[Timed, Timed] = (one, other)
    with task(label, WARM_UP + rounds) as advance:
        for _ in range(WARM_UP):
            warm = one() + other()
            advance()
            if warm * LEAST > budget.left:
                return None
        found: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds):
            if number >= LEAST and budget.left <= 0:
                break
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                found[which].append(both[which]())
            advance()
    return found
