"""What loss to expect of sparse training, from its size averaged over the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compress.errors import InputError
from compress.train.ramp import CubicRamp

FLOPS = 6
"""Operations of training per parameter and token, forward and backward (Kaplan et al. 2020)."""


@dataclass(frozen=True)
class ScalingLaw:
    """L(N, D) = E + A / N^alpha + B / D^beta, the cross-entropy in nats a token (Hoffmann et al. 2022, Chinchilla,
    https://arxiv.org/abs/2203.15556).

    For a run that prunes, N is the average of its active parameters over the run (Jin et al. 2025,
    https://arxiv.org/abs/2501.12486). The defaults are the fit of Besiroglu et al. 2024
    (https://arxiv.org/abs/2404.10102) to Hoffmann's runs; a fit of one's own text and tokenizer says more.

    Raises InputError where a coefficient is not positive.
    """

    E: float = 1.8172
    "Loss that no size and no amount of text gets below."
    A: float = 482.01
    "Weight of the size."
    B: float = 2085.43
    "Weight of the text."
    alpha: float = 0.3478
    "Power of the size."
    beta: float = 0.3658
    "Power of the text."

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"law: {name} is {value:g}; every coefficient is above 0")

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats a token."""
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta


BESIROGLU = ScalingLaw()
HOFFMANN = ScalingLaw(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
"""As printed in the paper, rounded; Besiroglu et al. show what the rounding costs."""


@dataclass(frozen=True)
class SparseRun:
    """Training on `tokens` tokens of a model that starts with `parameters`; of their share `prunable` the ramp prunes.

    Every token counts as the same compute, as every step does for `GradualPruning`.

    Raises InputError where a number is out of its range.
    """

    parameters: float
    tokens: float
    ramp: CubicRamp
    prunable: float = 1.0

    def __post_init__(self) -> None:
        for name in ("parameters", "tokens"):
            if not getattr(self, name) >= 1:
                raise InputError(f"{name} {getattr(self, name):g}: at least 1, as in 1B")
        if not 0 < self.prunable <= 1:
            raise InputError(f"prunable {self.prunable:g}: write a share above 0 and up to 1, as 90% or 0.9")

    def parameters_at(self, progress: float) -> float:
        """Active parameters when the share `progress` of the tokens is seen."""
        return self.parameters * (1 - self.prunable * self.ramp.at(progress))

    @property
    def average(self) -> float:
        """N̄, active parameters averaged over the tokens."""
        return self.parameters * (1 - self.prunable * self.ramp.mean)

    @property
    def moments(self) -> list[float]:
        """The start of the run, quarters of the ramp and the end, as shares of the run."""
        start, end = self.ramp.start, self.ramp.end
        return sorted({0.0, *(start + (end - start) * quarter / 4 for quarter in range(5)), 1.0})

    def forecast(self, law: ScalingLaw) -> dict[str, Any]:
        """The sparse run beside the dense one, and beside a dense run of the size that the sparse one ends with.

        `compute` is 6 · N̄ · D: what is spent where zeros cost nothing. With zeros in dense matrices it is the dense
        run's.
        """
        final = self.parameters_at(1)
        sizes = {
            "dense": (self.parameters, self.parameters),
            "sparse": (self.average, final),
            "small": (final, final),
        }
        runs = {
            name: {
                "average_parameters": average,
                "final_parameters": end,
                "compute": FLOPS * average * self.tokens,
                "loss": law.loss(average, self.tokens),
            }
            for name, (average, end) in sizes.items()
        }
        schedule = [
            {
                "progress": at,
                "tokens": at * self.tokens,
                "sparsity": self.ramp.at(at),
                "parameters": self.parameters_at(at),
            }
            for at in self.moments
        ]
        return {
            "tokens": self.tokens,
            "law": vars(law),
            **runs,
            "compute_saved": 1 - self.average / self.parameters,
            "schedule": schedule,
        }
