"""Least-squares update of the consumer on its kept inputs (as in He et al. 2017, https://arxiv.org/abs/1707.06168)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from compress.registry import repairs


@repairs.add("least_squares", needs=("input_gram", "input_mean"), adds_bias=False, paper="1707.06168")
def least_squares(
    weight: Tensor,
    bias: Tensor | None,
    keep: Tensor,
    input_gram: Tensor,
    input_mean: Tensor,
    *,
    ridge: float = 0.01,
    per: Literal["input", "matrix"] = "matrix",
    intercept: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """The weight on the kept inputs that gives nearest to the full output, and with `intercept` the bias to it.

    Minimises mean ‖W x + b − W' x_kept − b'‖² + λ‖W' − W_kept‖², λ = `ridge` × the mean of x² over all inputs, or with
    `per: input`, for each column, × that of its own input: then one input of huge size leaves the others their repair.
    The ridge pulls to the weight as it was, so that few tokens change little. The bias takes part where one exists;
    elsewhere the fit goes through the origin and equals `obs` of the same damping.

    `weight` `[out, in]`, `bias` `[out]` or None, `keep` bool `[in]`, `input_gram` `[in, in]` = mean x·xᵀ,
    `input_mean` `[in]` → the same shapes, zero in the removed columns.
    """
    w, gram, mean = weight.double(), input_gram.double(), input_mean.double()
    energy = gram.diagonal()[keep] if per == "input" else gram.diagonal().mean()
    damping = ridge * energy
    centred = intercept and bias is not None
    if centred:
        gram = gram - torch.outer(mean, mean)
    inner = gram[keep][:, keep]
    # Never singular: an input that is always zero has an empty row, and even `ridge: 0` must not divide by it.
    inner.diagonal().add_(damping.clamp_min(max(1e-10 * inner.diagonal().mean().item(), 1e-30)))
    new = torch.zeros_like(w)
    new[:, keep] = w[:, keep] + _solve(inner, gram[keep][:, ~keep] @ w[:, ~keep].T).T
    if not centred or bias is None:
        return new.to(weight.dtype), bias
    return new.to(weight.dtype), (bias.double() + (w - new) @ mean).to(bias.dtype)


def _solve(inner: Tensor, right: Tensor) -> Tensor:
    """The symmetric system's solution, by Cholesky, or where rounding left the matrix indefinite by elimination."""
    factor, failed = torch.linalg.cholesky_ex(inner)
    return torch.linalg.solve(inner, right) if failed else torch.cholesky_solve(right, factor)
