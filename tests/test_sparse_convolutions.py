"""Single weights of convolutions: an output's windows are its inputs, group by group."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compress
from compress.criteria.sparsegpt import sparsegpt
from compress.errors import InputError
from compress.recipe.read import parse_recipe


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=2, bias=False), nn.ReLU(),
        nn.ConvTranspose2d(12, 6, 2, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


def pruned(model: nn.Module, x: Tensor, **step: object) -> nn.Module:
    data = {"data": [x]} if step["by"] != "magnitude" else {}
    return compress.prune(model, x, [{"prune": "weights", "where": "all", **step}], **data).module


def least(saliency: Tensor, share: float) -> Tensor:
    """Of each row the smallest share, by sorting."""
    order = saliency.argsort(1)
    gone = torch.zeros_like(saliency, dtype=torch.bool)
    for row, columns in zip(gone, order[:, : round(saliency.shape[1] * share)], strict=True):
        row[columns] = True
    return gone


def test_of_each_output_the_smallest_of_all_kernels_go():
    model = net()
    small = pruned(model, torch.randn(2, 3, 10, 10), by="magnitude", remove="40%")
    assert torch.equal(small[0].weight, model[0].weight)  # no other layer gives what it reads
    for place in (2, 7):
        before, after = (each[place].weight.flatten(1) for each in (model, small))
        assert torch.equal(after, before.masked_fill(least(before.abs(), 0.4), 0)), place
    up, before = small[4].weight, model[4].weight
    rows = before.movedim(0, -1).reshape(-1, 12)  # of each output and place in the kernel
    assert torch.equal(up.movedim(0, -1).reshape(-1, 12) == 0, least(rows.abs(), 0.4))


def test_wanda_weighs_by_the_norm_of_what_a_kernels_place_sees():
    model, x = net(), torch.randn(3, 3, 10, 10)
    small = pruned(model, x, by="wanda", remove="50%", propagate="dense")
    norms = F.unfold(model[:2](x), 3).square().sum((0, 2)).sqrt()
    weight = model[2].weight.flatten(1)
    scores = torch.cat([w.abs() * norm for w, norm in zip(weight.chunk(2), norms.chunk(2), strict=True)])
    assert torch.equal(small[2].weight.flatten(1), weight.masked_fill(least(scores, 0.5), 0))


@torch.no_grad()
def test_sparsegpt_makes_up_for_what_goes_in_the_same_group():
    model, x = net(), torch.randn(8, 3, 10, 10)
    small = pruned(model, x, by="sparsegpt", remove="50%", propagate="dense")
    rows = F.unfold(model[:2](x), 3).transpose(1, 2).flatten(0, 1)
    parts = zip(model[2].weight.flatten(1).chunk(2), rows.chunk(2, 1), strict=True)
    wanted = torch.cat([sparsegpt(weight, seen.T @ seen / len(seen), 0.5) for weight, seen in parts])
    torch.testing.assert_close(small[2].weight.flatten(1), wanted, rtol=1e-3, atol=1e-4)


def test_what_lies_outside_of_blocks_is_asked_for():
    with pytest.raises(InputError, match="where: blocks: the model has no repeated blocks; say `where: all`"):
        pruned(net(), torch.randn(2, 3, 10, 10), by="magnitude", remove="50%", where="blocks")
    with pytest.raises(InputError, match="add `propagate: dense`"):
        parse_recipe("steps: [{prune: weights, by: wanda, remove: 50%, where: all}]")
