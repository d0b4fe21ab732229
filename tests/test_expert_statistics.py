"""What is gathered of experts, recomputed token by token."""

import moe
import numpy as np
import pytest
import torch

from compress.calibrate.collect import collect
from compress.checkpoint.open import open_checkpoint
from compress.model.model import Model
from compress.registry import criteria


def gathered(folder, needs):
    source = Model.of(open_checkpoint(folder))
    ids = moe.tokens(4, 16)
    return collect(source.checkpoint, source.graph, needs, [{"input_ids": ids[:2]}, {"input_ids": ids[2:]}]), ids


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "deepseek_v3"])
def test_statistics_of_experts(name, tmp_path):
    folder, layer = moe.save(name, tmp_path / name), 2
    stem = f"model.layers.{layer}.mlp.experts"
    stats, ids = gathered(
        folder,
        {
            **{f"expert_{what}": {stem} for what in ("count", "gate", "norm", "gated_norm", "coactivation")},
            "router_gram": {f"model.layers.{layer}.mlp.{'router' if name == 'gpt_oss' else 'gate'}.weight"},
            "input_norm": {f"{stem}.gate_up_proj", f"{stem}.down_proj"},
            "input_mean": {f"{stem}.down_proj"},
            "input_gram": {f"{stem}.down_proj"},
        },
    )
    model = moe.stock(name, folder)
    block, seen = moe.blocks(model)[layer], {}
    block.experts.register_forward_pre_hook(lambda module, args: seen.update(x=args[0], chosen=args[1], gates=args[2]))
    moe.router(block).register_forward_hook(lambda module, args, output: seen.update(logits=output[0]))
    with torch.no_grad():
        model(ids)
    x, experts, total = seen["x"], block.experts, ids.numel()
    counts, norms, gated, gates = (np.zeros(8) for _ in range(4))
    inner = {e: [] for e in range(8)}
    given = {e: [] for e in range(8)}
    for token in range(total):
        for slot in range(2):
            e, gate = int(seen["chosen"][token, slot]), float(seen["gates"][token, slot])
            up, down = experts.gate_up_proj[e].detach(), experts.down_proj[e].detach()
            if name == "gpt_oss":
                both = x[token] @ up + experts.gate_up_proj_bias[e].detach()
                one, other = both[::2].clamp(max=7.0), both[1::2].clamp(-7.0, 7.0)
                hidden = (other + 1) * one * torch.sigmoid(1.702 * one)
                f = hidden @ down + experts.down_proj_bias[e].detach()
            else:
                one, other = (up @ x[token]).chunk(2)
                hidden = torch.nn.functional.silu(one) * other
                f = down @ hidden
            counts[e] += 1
            gates[e] += gate
            norms[e] += float(f.norm())
            gated[e] += gate * float(f.norm())
            inner[e].append(hidden)
            given[e].append(x[token])
    close = {"rtol": 1e-4, "atol": 1e-6}
    some = np.maximum(counts, 1)
    np.testing.assert_allclose(stats["expert_count"][stem], counts / total, **close)
    np.testing.assert_allclose(stats["expert_gate"][stem], gates / total, **close)
    np.testing.assert_allclose(stats["expert_norm"][stem], norms / some, **close)
    np.testing.assert_allclose(stats["expert_gated_norm"][stem], gated / some, **close)
    both = np.zeros((8, 8))
    for one, other in seen["chosen"].tolist():
        both[one, other] += 1
        both[other, one] += 1
    np.testing.assert_allclose(stats["expert_coactivation"][stem], both / total, **close)
    logits = seen["logits"].double()
    np.testing.assert_allclose(
        next(iter(stats["router_gram"].values())), logits.T @ logits / total, rtol=1e-4, atol=1e-5
    )
    for e in range(8):
        if counts[e]:
            h, g = torch.stack(inner[e]), torch.stack(given[e])
            expected = (h.square().sum(0) / 4).sqrt()
            torch.testing.assert_close(stats["input_norm"][f"{stem}.down_proj"][e], expected, rtol=1e-4, atol=1e-5)
            expected = (g.square().sum(0) / 4).sqrt()
            torch.testing.assert_close(stats["input_norm"][f"{stem}.gate_up_proj"][e], expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(stats["input_mean"][f"{stem}.down_proj"][e], h.mean(0), rtol=1e-4, atol=1e-5)
            gram = stats["input_gram"][f"{stem}.down_proj"][e]
            torch.testing.assert_close(gram, h.T @ h / len(h), rtol=1e-4, atol=1e-5)


def test_reap_and_its_forms():
    gated, norm, count = (torch.rand(8) for _ in range(3))
    reap = criteria.get("reap").target
    assert torch.equal(reap(gated, norm, count), gated)
    assert torch.equal(reap(gated, norm, count, gate=False), norm)
    assert torch.equal(reap(gated, norm, count, average="sum"), gated * count)


def test_router_similarity_is_the_cosine_of_logit_columns():
    """Whatever the scale of an expert's logits, over tokens written out one by one."""
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1.0, 9.0, 0.1, 1.0, 3.0, 0.5]
    )
    logits[:, 3] = 20 * logits[:, 0]
    found = criteria.get("router_similarity").target(logits.T @ logits / 50)
    for i in range(6):
        for j in range(6):
            dot = sum(float(row[i] * row[j]) for row in logits)
            lengths = [sum(float(row[k]) ** 2 for row in logits) ** 0.5 for k in (i, j)]
            assert float(found[i, j]) == pytest.approx(1 - dot / lengths[0] / lengths[1], abs=1e-5)
