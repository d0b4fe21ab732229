"""Repairs against direct solutions."""

from __future__ import annotations

import pytest
import torch

from compress.registry import repairs

OUT, IN, TOKENS = 5, 12, 200
generator = torch.Generator().manual_seed(0)
X = torch.randn(TOKENS, IN, generator=generator) @ torch.randn(IN, IN, generator=generator) + 0.5
W, B = torch.randn(OUT, IN, generator=generator), torch.randn(OUT, generator=generator)
KEEP = torch.ones(IN, dtype=torch.bool)
KEEP[[1, 4, 9]] = False
MEAN, GRAM = X.mean(0), X.T @ X / TOKENS
Y = X @ W.T + B
lstsq = repairs.get("least_squares").target
obs = repairs.get("obs").target
mend = repairs.get("bias").target


def cut(weight, bias):
    """Output of the pruned projection."""
    out = X[:, KEEP] @ weight[:, KEEP].T
    return out if bias is None else out + bias


@pytest.mark.parametrize("bias", [B, None], ids=["bias", "no bias"])
def test_bias_keeps_the_mean_output(bias):
    weight, new = mend(W, bias, KEEP, MEAN)
    assert torch.equal(weight, W)
    full = X @ W.T if bias is None else Y
    torch.testing.assert_close(cut(weight, new).mean(0), full.mean(0), atol=1e-4, rtol=1e-4)


def test_least_squares_without_ridge_is_lstsq():
    design = torch.cat([X[:, KEEP], torch.ones(TOKENS, 1)], 1).double()
    solution = torch.linalg.lstsq(design, Y.double()).solution.float()
    weight, bias = lstsq(W, B, KEEP, GRAM, MEAN, ridge=0.0)
    torch.testing.assert_close(weight[:, KEEP], solution[:-1].T, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(bias, solution[-1], atol=1e-3, rtol=1e-3)
    assert not weight[:, ~KEEP].any()


@pytest.mark.parametrize("intercept", [True, False])
def test_least_squares_with_ridge_is_an_augmented_lstsq(intercept):
    ridge = 0.1
    x, y = (X - MEAN, Y - Y.mean(0)) if intercept else (X, Y - B)
    damping = (ridge * GRAM.diagonal().mean() * TOKENS).sqrt()
    design = torch.cat([x[:, KEEP], damping * torch.eye(int(KEEP.sum()))]).double()
    wanted = torch.cat([y, damping * W[:, KEEP].T]).double()
    solution = torch.linalg.lstsq(design, wanted).solution.float()
    weight, bias = lstsq(W, B, KEEP, GRAM, MEAN, ridge=ridge, intercept=intercept)
    torch.testing.assert_close(weight[:, KEEP], solution.T, atol=1e-3, rtol=1e-3)
    if intercept:
        torch.testing.assert_close(cut(weight, bias).mean(0), Y.mean(0), atol=1e-3, rtol=1e-3)
    else:
        assert bias is B


def test_obs_is_the_direct_solve_of_the_damped_problem():
    damping = 0.01
    hessian = (GRAM + damping * GRAM.diagonal().mean() * torch.eye(IN)).double()
    weight, bias = obs(W, B, KEEP, GRAM, damping=damping)
    direct = W[:, KEEP] + W[:, ~KEEP] @ torch.linalg.solve(hessian[KEEP][:, KEEP], hessian[KEEP][:, ~KEEP]).T.float()
    torch.testing.assert_close(weight[:, KEEP], direct, atol=1e-3, rtol=1e-3)
    assert bias is B and not weight[:, ~KEEP].any()


def test_obs_equals_surgeon_steps_one_channel_at_a_time():
    hessian = (GRAM + 0.01 * GRAM.diagonal().mean() * torch.eye(IN)).double()
    weight, inverse = W.double().clone(), torch.linalg.inv(hessian)
    for j in torch.nonzero(~KEEP).flatten().tolist():
        weight -= torch.outer(weight[:, j], inverse[j]) / inverse[j, j]
        inverse -= torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    torch.testing.assert_close(obs(W, None, KEEP, GRAM)[0], weight.float(), atol=1e-3, rtol=1e-3)


def test_without_a_bias_least_squares_is_obs_and_adds_none():
    weight, bias = lstsq(W, None, KEEP, GRAM, MEAN, ridge=0.01)
    torch.testing.assert_close(weight, obs(W, None, KEEP, GRAM, damping=0.01)[0], atol=1e-4, rtol=1e-4)
    assert bias is None


def test_each_repair_helps_more_than_the_last():
    def error(weight, bias):
        return (cut(weight, bias) - Y).square().mean()

    errors = [error(W, B), error(*mend(W, B, KEEP, MEAN)), error(*lstsq(W, B, KEEP, GRAM, MEAN, ridge=1e-6))]
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] > error(*obs(W, B, KEEP, GRAM)) > errors[2]


@pytest.mark.parametrize("name", repairs.names())
def test_dead_inputs_and_nothing_removed(name):
    entry = repairs.get(name)
    x = X.clone()
    x[:, 3] = 0  # an input that never fires
    stats = {"input_mean": x.mean(0), "input_gram": x.T @ x / TOKENS}
    given = [stats[statistic] for statistic in entry.meta.needs]
    weight, bias = entry.target(W, B, KEEP, *given)
    assert weight.shape == W.shape and weight.isfinite().all() and bias.isfinite().all()
    zero = [torch.zeros_like(s) for s in given]
    assert entry.target(W, B, KEEP, *zero)[0].isfinite().all()
    weight, bias = entry.target(W, B, torch.ones_like(KEEP), *given)
    torch.testing.assert_close(weight, W)
    torch.testing.assert_close(bias, B)
    half = entry.target(W.bfloat16(), B.bfloat16(), KEEP, *given)
    assert half[0].dtype == half[1].dtype == torch.bfloat16


def test_least_squares_of_a_matrix_that_rounding_left_indefinite():
    gram = torch.tensor([[1, 1 + 1e-4, 0.6], [1 + 1e-4, 1, 0.5], [0.6, 0.5, 1]])
    keep, weight = torch.tensor([True, True, False]), torch.tensor([[0.0, 0.0, 1.0]])
    assert torch.linalg.eigvalsh(gram[:2, :2])[0] < 0  # no Cholesky factor
    found, _ = lstsq(weight, None, keep, gram, torch.zeros(3), ridge=0.0)
    torch.testing.assert_close(found[:, :2] @ gram[:2, :2], gram[2:, :2], atol=1e-3, rtol=0)
    assert found[0, 2] == 0
