"""Optimal brain surgeon (Hassibi & Stork 1993) on whole input channels, as in SparseGPT and ZipLM."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from compress.registry import repairs


@repairs.add("obs", needs=("input_gram",), adds_bias=False, paper="2302.04089")
def obs(
    weight: Tensor,
    bias: Tensor | None,
    keep: Tensor,
    input_gram: Tensor,
    *,
    damping: float = 0.01,
    per: Literal["input", "matrix"] = "matrix",
) -> tuple[Tensor, Tensor | None]:
    """Updates the kept weights through the inverse Hessian of the output error; the bias stays.

    δW = −W_P · (H⁻¹_PP)⁻¹ · H⁻¹_P* for the removed channels P, H = mean x·xᵀ + `damping` × x² on the diagonal, the
    mean over all inputs, or with `per: input` that of each.

    `weight` `[out, in]`, `bias` `[out]` or None, `keep` bool `[in]`, `input_gram` `[in, in]` → the same shapes, zero
    in the removed columns.
    """
    w, hessian, gone = weight.double(), input_gram.double().clone(), ~keep
    energy = hessian.diagonal().clone()
    mean = energy.mean()
    added = damping * (energy.clamp_min(1e-10 * mean.item()) if per == "input" else mean.expand_as(energy))
    hessian.diagonal().add_(added.clamp_min(1e-30))
    if not gone.any():
        return weight, bias
    factor = torch.linalg.cholesky(hessian)
    rows = torch.zeros(len(hessian), int(gone.sum()), dtype=w.dtype, device=w.device)
    rows[gone.nonzero().squeeze(1), torch.arange(rows.shape[1], device=w.device)] = 1
    inverse = torch.cholesky_solve(rows, factor)  # columns P of H⁻¹, [in, removed]
    new = w - torch.linalg.solve(inverse[gone], w[:, gone].T).T @ inverse.T
    new[:, gone] = 0
    return new.to(weight.dtype), bias
