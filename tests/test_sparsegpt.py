"""SparseGPT against its algorithm written plainly: one column at a time, each error carried to all columns at once."""

import pytest
import torch

from compress.registry import criteria

LENGTH = 2048  # of the paper's sequences


def plain(weight, x, share, block=None, damping=0.01):
    """The published algorithm in float64, with its code's Hessian: 2 / samples · Σ x·xᵀ, ones where inputs are dead.

    `weight` `[out, in]`, `x` `[tokens, in]`, which stand for sequences of `LENGTH`. The code's threshold takes one
    weight more than a block's share; this takes the share.
    """
    weight, x = weight.double().clone(), x.double()
    hessian = 2 * LENGTH / len(x) * x.T @ x
    dead = hessian.diagonal() == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    hessian += damping * hessian.diagonal().mean() * torch.eye(len(hessian))
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    gone = torch.zeros_like(weight, dtype=torch.bool)
    for j in range(weight.shape[1]):
        if j % 128 == 0 and block is None:
            part = slice(j, j + 128)
            scores = weight[:, part].square() / factor.diagonal()[part].square()
            chosen = scores.flatten().argsort()[: int(scores.numel() * share)]
            gone[:, part].view(scores.shape)[chosen // scores.shape[1], chosen % scores.shape[1]] = True
        if block is not None and j % block[1] == 0:
            part = slice(j, j + block[1])
            scores = weight[:, part].square() / factor.diagonal()[part].square()
            gone[:, part].scatter_(1, scores.argsort(dim=1)[:, : block[0]], True)
        error = torch.where(gone[:, j], weight[:, j], 0.0) / factor[j, j]
        weight[:, j:] -= error[:, None] * factor[j, j:]
        weight[gone[:, j], j] = 0
    return weight


def given(columns, seed=0):
    """A weight `[24, columns]` and correlated inputs, as hidden states are."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1024, columns, generator=generator)
    return torch.randn(24, columns, generator=generator), x @ torch.randn(columns, columns, generator=generator) / 20


@pytest.mark.parametrize("block", [None, (2, 4), (4, 8), (3, 6)])
def test_errors_reach_every_column_to_the_right(block):
    weight, x = given(300)
    made = criteria.get("sparsegpt").target(weight, x.T @ x / len(x), 0.5, block)
    expected = plain(weight, x, 0.5, block)
    assert ((made == 0) == (expected == 0)).all()
    torch.testing.assert_close(made.double(), expected, atol=2e-3, rtol=1e-3)


def test_inputs_that_are_never_active_do_not_damp_the_others():
    weight, x = given(300, seed=1)
    x *= 0.01 / x.std()  # small, as after a norm with small gains: a one on the diagonal would outweigh all
    x[:, torch.randperm(300, generator=torch.Generator().manual_seed(2))[:9]] = 0
    made = criteria.get("sparsegpt").target(weight, x.T @ x / len(x), 0.5)
    expected = plain(weight, x, 0.5)
    assert ((made == 0) == (expected == 0)).float().mean() > 0.98
    assert (made[:, (x == 0).all(0)] == 0).all()


def test_no_input_is_ever_active():
    made = criteria.get("sparsegpt").target(torch.ones(2, 8), torch.zeros(8, 8), 0.5)
    assert (made == 0).all()
