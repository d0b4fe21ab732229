"""The policy of PruneNet (arXiv 2501.15296) and how it is trained, by REINFORCE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from compress.console import task
from compress.criteria.prunenet.spectrum import ks_distance, reward, singular_values

DISCOUNT = 0.99
"""A layer's reward counts so many times that of the layer before."""

CLOSEST = 1e-6
"""Uniform noise stays so far from 0 and 1, where its logit is infinite."""

Matrix = Callable[[], Tensor]
"""Reads the first matrix of an MLP, `[rows, columns]`, anew each time, so that one is held at a time."""


class Policy:
    """α = σ((W Pᵀ + b) r) for each row of a matrix W `[rows, columns]`; P `[rows, columns]`, b and r `[rows]`.

    Nothing lies between the two layers, so that (W Pᵀ + b) r = W (Pᵀ r) + b·r: it is a direction `[columns]` and an
    offset that the rows are scored by. Trained are P, b and r.
    """

    def __init__(self, rows: int, columns: int, generator: torch.Generator) -> None:
        spread = 1 / sqrt(columns)  # as torch starts a linear layer
        self.projection = ((2 * torch.rand(rows, columns, generator=generator) - 1) * spread).requires_grad_()
        self.bias = ((2 * torch.rand(rows, generator=generator) - 1) * spread).requires_grad_()
        self.rows = torch.rand(rows, generator=generator).requires_grad_()

    def parameters(self) -> list[Tensor]:
        """What is trained."""
        return [self.projection, self.bias, self.rows]

    def learned(self) -> dict[str, Tensor]:
        """All that scores depend on: `direction` `[columns]` and `offset` `[]`."""
        with torch.no_grad():
            return {"direction": self.projection.T @ self.rows, "offset": self.bias @ self.rows}

    def logits(self, weight: Tensor) -> Tensor:
        """log(α / (1 − α)) of each row of `weight`, `[rows]`."""
        return weight @ (self.projection.T @ self.rows) + self.bias @ self.rows


def noisy(logits: Tensor, noise: Tensor) -> Tensor:
    """The logit of the probability to keep each row: that of α and that of uniform `noise` in (0, 1) added up."""
    return logits + torch.logit(noise, CLOSEST)


def loss(logits: Tensor, noise: Tensor, kept: Tensor, earned: float) -> Tensor:
    """−Σ log p over the rows `kept`, times what they `earned`."""
    return -logsigmoid(noisy(logits, noise))[kept].sum() * earned


def drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Scores `[rows]` whose highest ones, however many, are rows drawn one after the other by their noisy chances.

    The published code draws so what stays: log p and Gumbel noise are ranked as a draw without replacement goes.
    """
    noise, clock = torch.rand(2, len(logits), generator=generator, dtype=torch.float64).clamp_min(1e-300)
    return logsigmoid(noisy(logits.double(), noise)) - torch.log(-torch.log(clock))


@dataclass
class Training:
    """One policy trained on all `matrices`, of one shape, with `share` of their rows gone.

    As in the published code: an episode draws the rows of every layer from one state of the policy; then the policy
    takes one step for each layer, with noise drawn anew. It is kept as it is after the best episode.
    """

    matrices: Sequence[Matrix]
    share: float
    episodes: int
    learning_rate: float
    seed: int

    def run(self) -> dict[str, Tensor]:
        """What the best policy scores rows by."""
        generator = torch.Generator().manual_seed(self.seed)
        with task(
            "prunenet: learning a policy from spectra; layers", len(self.matrices) * (1 + self.episodes)
        ) as advance:
            rows, columns = self.matrices[0]().shape
            spectra = []
            for matrix in self.matrices:
                spectra.append(singular_values(matrix()))
                advance()
            policy = Policy(rows, columns, generator)
            optimizer = torch.optim.AdamW(policy.parameters(), lr=self.learning_rate)
            best, found = 0.0, policy.learned()
            for _ in range(self.episodes):
                kept, earned = [], []
                for matrix, spectrum in zip(self.matrices, spectra, strict=True):
                    weight = matrix()
                    kept.append(self._drawn(policy, weight, generator))
                    earned.append(reward(ks_distance(spectrum, singular_values(weight[kept[-1]]))))
                    advance()
                for layer, matrix in enumerate(self.matrices):
                    noise = torch.rand(rows, generator=generator)
                    with torch.enable_grad():
                        step = loss(policy.logits(matrix()), noise, kept[layer], earned[layer] * DISCOUNT**layer)
                    optimizer.zero_grad()
                    step.backward()
                    optimizer.step()
                if sum(earned) > best:
                    best, found = sum(earned), policy.learned()
        return found

    def _drawn(self, policy: Policy, weight: Tensor, generator: torch.Generator) -> Tensor:
        """Rows that the policy keeps, drawn one after the other by their probabilities."""
        count = max(1, int((1 - self.share) * len(weight)))
        with torch.no_grad():
            chances = torch.sigmoid(noisy(policy.logits(weight), torch.rand(len(weight), generator=generator)))
        tiny = torch.finfo(chances.dtype).tiny  # a draw without replacement needs enough rows that are not impossible
        return torch.multinomial(chances.clamp_min(tiny), count, generator=generator)
