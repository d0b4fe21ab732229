"""`by: curvature`: its factors by autograd on a stock model, its score as the loss's second-order growth."""

from __future__ import annotations

import pytest
import torch
import zoo
from torch.nn import functional

from compress.calibrate.collect import collect
from compress.criteria.curvature import curvature
from compress.registry import statistics

PLACES = {"llama": "model.layers.1.mlp.down_proj", "gpt2": "transformer.h.1.mlp.c_proj"}


@pytest.mark.parametrize(("name", "place"), PLACES.items())
def test_the_output_s_factor_is_the_mean_of_gradients_products(name, place, tmp_path):
    checkpoint, batches = zoo.save(name, tmp_path), zoo.batches(name, (2, 3))
    key = f"{place}.weight"
    found = collect(checkpoint, zoo.graph(name), {"output_curvature": {key}}, batches)["output_curvature"][key]
    stock, outputs, total, tokens = zoo.stock(name, tmp_path), [], 0, 0
    stock.get_submodule(place).register_forward_hook(lambda module, args, output: outputs.append(output))
    for batch in batches:
        ids = batch["input_ids"]
        logits = stock(**batch).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        (g,) = torch.autograd.grad(loss, outputs.pop())
        g = g.flatten(0, 1) * ids.numel()
        total, tokens = total + g.T @ g, tokens + ids.numel()
    torch.testing.assert_close(found, total / tokens, rtol=1e-4, atol=1e-6)
    assert statistics.get("output_curvature").about


def test_the_score_is_half_the_quadratic_form_of_what_is_lost():
    torch.manual_seed(0)
    x, weight = torch.randn(3000, 5) * torch.arange(1, 6) + 1, torch.randn(4, 5)
    root = torch.randn(4, 4)
    factor = root @ root.T
    mean, variance = x.mean(0), x.var(0, unbiased=False)
    for centred in (True, False):
        found = curvature(weight, variance, mean, factor, centred=centred)
        for j in range(5):
            lost = (x[:, j] - (mean[j] if centred else 0))[:, None] * weight[:, j]
            wanted = 0.5 * torch.einsum("ti,ij,tj->t", lost, factor, lost).mean()
            assert found[j] == pytest.approx(float(wanted), rel=1e-3)


def test_an_input_of_a_transposed_convolution_reaches_as_many_outputs_as_the_kernel_has_positions():
    torch.manual_seed(0)
    layer, variance = torch.nn.ConvTranspose2d(3, 4, 2, bias=False), torch.rand(3)
    root = torch.randn(4, 4)
    factor = root @ root.T
    kernel = layer.weight.detach()
    wanted = 0.5 * variance * torch.einsum("iokl,op,ipkl->i", kernel, factor, kernel)
    found = curvature(kernel.flatten(1).T, variance, torch.zeros(3), factor)
    torch.testing.assert_close(found, wanted)


def test_only_the_first_samples_are_run_backwards(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    checkpoint, batches = zoo.save("llama", tmp_path / "in"), zoo.batches("llama", (2, 3))
    key = f"{PLACES['llama']}.weight"
    needs = {"output_curvature": {key}, "fisher": {key}, "input_mean": {key}}

    def found(batches, **options):
        stats = collect(checkpoint, zoo.graph("llama"), needs, batches, data_key="data", **options)
        return {name: stats[name][key] for name in needs}

    few, whole = found(batches, gradients=3), found(batches)
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "other"))
    alone = found([batches[0], {name: value[:1] for name, value in batches[1].items()}])
    for name in ("output_curvature", "fisher"):
        torch.testing.assert_close(few[name], alone[name])
        assert not few[name].allclose(whole[name])  # nor is one taken for the other on disk
    assert few["input_mean"].equal(whole["input_mean"])
