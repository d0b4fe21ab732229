"""Optimal brain surgeon (Hassibi & Stork 1993) on whole input channels, as in SparseGPT and ZipLM."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import repairs


@repairs.add("obs", needs=("input_gram",), adds_bias=False, paper="2302.04089")
def obs(
    weight: Tensor, bias: Tensor | None, keep: Tensor, input_gram: Tensor, *, damping: float = 0.01
) -> tuple[Tensor, Tensor | None]:
    """Updates the kept weights through the inverse Hessian of the output error; the bias stays.

    δW = −W_P · (H⁻¹_PP)⁻¹ · H⁻¹_P* for the removed channels P, H = mean x·xᵀ + `damping` × mean x² on the diagonal.

    `weight` `[out, in]`, `bias` `[out]` or None, `keep` bool `[in]`, `input_gram` `[in, in]` → the same shapes, zero
    in the removed columns.
    """
    w, hessian, gone = weight.double(), input_gram.double().clone(), ~keep
    hessian.diagonal().add_(max(damping * hessian.diagonal().mean().item(), 1e-30))
    if not gone.any():
        return weight, bias
    factor = torch.linalg.cholesky(hessian)
    rows = torch.zeros(len(hessian), int(gone.sum()), dtype=w.dtype, device=w.device)
    rows[gone.nonzero().squeeze(1), torch.arange(rows.shape[1], device=w.device)] = 1
    inverse = torch.cholesky_solve(rows, factor)  # columns P of H⁻¹, [in, removed]
    new = w - torch.linalg.solve(inverse[gone], w[:, gone].T).T @ inverse.T
    new[:, gone] = 0
    return new.to(weight.dtype), bias
