"""What pruning changed, and what of it chance alone could have done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

ERRORS = 2.0
"""Standard errors to each side of a figure: about 95 % of what chance does."""

CONFIDENCE = 0.95
ROUNDING = 1e-6
"""Of float32: two figures as near as that are the same."""


@dataclass(frozen=True)
class Sampled:
    """A statistic of some texts, and its `without` `[groups]`: the same with one text (or group of them) left out."""

    value: float
    without: np.ndarray


@dataclass(frozen=True)
class Change:
    """The pruned model's figure as a multiple of the dense one's, where one is no difference.

    It lies between `low` and `high` with about 95 % confidence, over `samples` texts or rounds of timing. `measurable`
    says whether that leaves one out.
    """

    value: float
    low: float
    high: float
    samples: int
    measurable: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "measurable", not self.low - ROUNDING <= 1 <= self.high + ROUNDING)


def difference(one: Sampled, other: Sampled) -> tuple[float, float]:
    """`other` less `one`, paired over the same texts, and its standard error by the jackknife (Tukey 1958).

    For means over texts of equal length the error is the standard deviation of the texts' differences over √n.
    """
    apart = other.without - one.without
    groups = len(apart)
    spread = math.sqrt((groups - 1) / groups * float(((apart - apart.mean()) ** 2).sum()))
    return other.value - one.value, spread


def loss_change(before: Sampled, after: Sampled) -> Change:
    """The ratio of two perplexities from the mean losses, in nats a token, over the same texts."""
    apart, error = difference(before, after)
    low, high = apart - ERRORS * error, apart + ERRORS * error
    return Change(_exp(apart), _exp(low), _exp(high), len(before.without))


def ratio_change(before: Sampled, after: Sampled) -> Change | None:
    """The ratio of two means of positive numbers over the same texts, its error by the jackknife.

    None where a mean is zero, with all texts or without some, or there is one text: no ratio or error is known then.
    """
    whole = np.array([before.value, *before.without])
    if len(before.without) < 2 or not (whole > 0).all():
        return None
    ratio = after.value / before.value
    _, error = difference(Sampled(0.0, np.zeros_like(before.without)), Sampled(ratio, after.without / before.without))
    return Change(ratio, ratio - ERRORS * error, ratio + ERRORS * error, len(before.without))


def similarity_change(found: Sampled, samples: int) -> Change:
    """A cosine or correlation to the dense model, which has one to itself."""
    own = Sampled(1.0, np.ones_like(found.without))
    apart, error = difference(own, found)
    return Change(1 + apart, 1 + apart - ERRORS * error, 1 + apart + ERRORS * error, samples)


def time_change(before: Sequence[float], after: Sequence[float]) -> Change:
    """The median ratio of times taken in turns, with the interval of the median that the sign test gives.

    It assumes no distribution: with n rounds it runs from the k-th smallest ratio to the k-th largest, k as great as
    the binomial distribution allows for 95 % (below six rounds it is all of them).
    """
    ratios = np.sort(np.asarray(after) / np.asarray(before))
    rounds, outside, k = len(ratios), 0.0, 0
    while (outside := outside + 2 * math.comb(rounds, k) / 2**rounds) <= 1 - CONFIDENCE:
        k += 1
    k = max(k, 1)
    return Change(float(np.median(ratios)), float(ratios[k - 1]), float(ratios[-k]), rounds)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
