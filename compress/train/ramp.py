"""How much is pruned at which point of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from compress.errors import InputError


@dataclass(frozen=True)
class CubicRamp:
    """s(c) = s_f · (1 − (1 − (c − start) / (end − start))³), 0 before `start` and s_f = `sparsity` from `end` on.

    c is the share of the training compute spent so far. The cubic is that of Zhu and Gupta 2017
    (https://arxiv.org/abs/1710.01878), the defaults of start and end those that Jin et al. 2025, "The Journey Matters",
    found best among 80 schedules (https://arxiv.org/abs/2501.12486).

    Raises InputError where the sparsity is no share, or the ramp does not lie within the run.
    """

    sparsity: float
    start: float = 0.25
    end: float = 0.75

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise InputError(f"sparsity {self.sparsity:g}: write a share above 0 and below 1, as 80% or 0.8")
        if not 0 <= self.start < self.end <= 1:
            raise InputError(
                f"start {self.start:g}, end {self.end:g}: the ramp lies within the run, from 0 to 1, and starts before "
                "it ends, as 25% and 75%"
            )

    def at(self, progress: float) -> float:
        """s(c) for a share c of the compute."""
        left = 1 - (progress - self.start) / (self.end - self.start)
        return self.sparsity * (1 - min(max(left, 0.0), 1.0) ** 3)

    @property
    def mean(self) -> float:
        """∫₀¹ s(c) dc; over its own length the ramp's mean is three quarters of its top."""
        return self.sparsity * (0.75 * (self.end - self.start) + 1 - self.end)
