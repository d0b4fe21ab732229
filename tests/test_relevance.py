"""Relevance propagation: its rules against sums written out, what it conserves, and the statistic against one pass."""

from __future__ import annotations

import pytest
import torch
import zoo
from torch import nn
from torch.nn import functional

import compress
from compress.calibrate.collect import collect
from compress.relevance.functions import Rule
from compress.relevance.rules import EPSILON, Relevance

PLAIN, GAMMA, POSITIVE = Rule(), Rule(gamma=0.25), Rule(positive=True)


def shares(x, weight, rule):
    """How a linear map's results are made of its inputs, as shares of each: `[out, in]`."""
    parts = weight * x
    plus, minus = parts.clamp(min=0), parts.clamp(max=0)
    if rule.positive:
        return plus / plus.sum(1, keepdim=True)
    own = torch.where(parts.sum(1, keepdim=True) > 0, plus, minus)
    parts = parts + rule.gamma * own
    return parts / parts.sum(1, keepdim=True)


@pytest.mark.parametrize("rule", [PLAIN, GAMMA, POSITIVE])
@pytest.mark.parametrize("convolved", [False, True])
def test_a_product_with_weights_shares_its_relevance_out(rule, convolved):
    torch.manual_seed(0)
    x, weight, given = torch.randn(7), torch.randn(5, 7), torch.randn(5)
    expected = given @ shares(x, weight, rule)
    own = x.clone().requires_grad_()
    with Relevance(rule):
        if convolved:
            result = functional.conv2d(own.view(1, 7, 1, 1), weight.view(5, 7, 1, 1)).flatten()
        else:
            result = functional.linear(own, weight)
    result.backward(given / result.detach())
    assert own.grad is not None
    torch.testing.assert_close(own.grad * x, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", [PLAIN, GAMMA, POSITIVE])
def test_a_net_without_biases_hands_all_of_its_answer_on(rule):
    torch.manual_seed(1)

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.weight = nn.RMSNorm(8), nn.Parameter(torch.rand(8) + 0.5)
            self.gate, self.up, self.down = (nn.Linear(*size, bias=False) for size in ((8, 12), (8, 12), (12, 8)))

        def forward(self, x):
            normed = self.norm(x) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1) * self.weight
            return x + self.down(functional.silu(self.gate(normed)) * self.up(normed))

    net = nn.Sequential(nn.Conv1d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8, bias=False), Gated())
    net, x = net.double(), torch.randn(2, 3, 6, dtype=torch.double, requires_grad=True)
    with Relevance(rule):
        answer = net(x)[:, 2].sum()
    (gradient,) = torch.autograd.grad(answer, x)
    torch.testing.assert_close((x * gradient).sum(), answer, rtol=1e-4, atol=1e-5)
    (plain,) = torch.autograd.grad(net(x)[:, 2].sum(), x)
    assert not torch.allclose((x * plain).sum(), answer, rtol=1e-2)


def test_attention_gives_half_to_its_values_and_a_quarter_each_to_queries_and_keys():
    torch.manual_seed(2)
    q, k, v = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3))
    given = torch.randn(1, 2, 5, 4)
    expected = torch.autograd.grad(((q @ k.mT / 2).softmax(-1) @ v * given).sum(), (q, k, v))
    with Relevance(PLAIN):
        fused = functional.scaled_dot_product_attention(q, k, v)
        eager = torch.matmul(torch.matmul(q, k.mT).div(2).softmax(-1), v)
    for result in (fused, eager):
        found = torch.autograd.grad((result * given).sum(), (q, k, v))
        for one, other, share in zip(found, expected, (0.25, 0.25, 0.5), strict=True):
            torch.testing.assert_close(one, other * share, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("llama", ("model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj", "model.layers.1.mlp.up_proj")),
        ("gpt2", ("transformer.h.0.mlp.c_proj",)),
    ],
)
def test_the_statistic_is_that_of_one_pass_through_the_model(name, places, tmp_path):
    checkpoint, batches = zoo.save(name, tmp_path), zoo.batches(name, (2, 1))
    keys = {f"{place}.weight" for place in places}
    found = collect(checkpoint, zoo.graph(name), {"input_relevance": keys}, batches)["input_relevance"]
    stock, seen, sums = zoo.stock(name, tmp_path), {}, dict.fromkeys(keys, 0)

    def watch(place):
        def hook(module, args):
            seen[place] = args[0].view_as(args[0])  # others read what is given, too
            return seen[place], *args[1:]

        return hook

    for place in places:
        stock.get_submodule(place).register_forward_pre_hook(watch(place))
    for batch in batches:
        ids = batch["input_ids"]
        with EPSILON(1.0):
            logits = stock(**batch, use_cache=False).logits[:, :-1]
        answer = logits.gather(-1, ids[:, 1:, None]).sum()
        gradients = torch.autograd.grad(answer, list(seen.values()), retain_graph=True)
        for place, x, gradient in zip(seen, seen.values(), gradients, strict=True):
            sums[f"{place}.weight"] += (x * gradient).sum(1).abs().sum(0).detach()
    for key in keys:
        torch.testing.assert_close(found[key], sums[key] / 3, rtol=1e-3, atol=1e-6)


def test_of_a_convolution_a_channel_s_is_the_sum_over_all_positions():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False), nn.ReLU(), nn.Flatten(1))
    net.append(nn.Linear(24, 5))
    x = torch.randn(3, 3, 6, 6)
    hidden = net[:2](x).detach().requires_grad_()
    with Relevance(PLAIN):
        answers = net[2:](hidden)
    target = torch.tensor([1, 0, 4])
    (gradient,) = torch.autograd.grad(answers.gather(1, target[:, None]).sum(), hidden)
    each = (hidden * gradient).sum((2, 3)).abs().sum(0).detach()
    steps = [{"prune": "channels", "by": "relevance", "remove": "50%", "skip": ["5*"]}]
    small = compress.prune(net, x, steps, data=[(x, target)], loss=functional.cross_entropy).module
    kept = sorted(each.argsort().tolist()[4:])
    torch.testing.assert_close(small[0].weight, net[0].weight[kept])
