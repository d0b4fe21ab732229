"""Experts are dropped, merged and narrowed; stock transformers open the result and compute what the dense model does
with a router that sees only the experts left."""

import json
import subprocess
import sys

import moe
import numpy as np
import pytest
import torch
import zoo
from safetensors.torch import load_file

from compress.errors import BudgetError, InputError
from compress.inputs.text import batches
from compress.pipeline import Options, apply, plan, run
from compress.recipe.read import parse_recipe
from compress.registry import criteria
from compress.score.clusters import clusters, merge_heights

QUICK = Options(evaluate=False)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))


def recipe(step):
    return parse_recipe(f"calibrate: {{data: random, samples: 6, length: 24, batch: 3}}\nsteps:\n- {step}\n")


def kept(folder):
    """Layer → experts that stay, in the numbers of the dense model."""
    step = json.loads((folder / "plan.json").read_text())["steps"][-1]["decision"]["kept"]
    return {int(name.split(".")[2]): found for name, found in step.items() if name.endswith("experts")}


@pytest.mark.parametrize("name", zoo.few(moe.MODELS, ("mixtral",)))
def test_half_the_experts(name, tmp_path):
    dense, out = moe.save(name, tmp_path / name), tmp_path / "out"
    run(recipe("{prune: experts, by: reap, remove: 50%}"), dense, out, QUICK)
    masked, pruned = moe.stock(name, dense), moe.stock(name, out)
    chosen = kept(out)
    assert chosen.keys() == moe.blocks(masked).keys()
    for layer, block in moe.blocks(masked).items():
        small = moe.router(moe.blocks(pruned)[layer])
        assert len(chosen[layer]) == 4
        for key, value in moe.router(block).state_dict().items():
            assert torch.equal(small.state_dict()[key], value[chosen[layer]])
        setattr(block, "gate" if hasattr(block, "gate") else "router", moe.Renumbered(small, chosen[layer]))
    ids = moe.tokens()
    with torch.no_grad():
        torch.testing.assert_close(pruned(ids).logits, masked(ids).logits, atol=1e-5, rtol=1e-4)
        assert (moe.stock(name, dense)(ids).logits - pruned(ids).logits).abs().max() > 1e-3


@pytest.mark.slow
def test_in_a_process_that_knows_only_transformers(tmp_path):
    dense = moe.save("mixtral", tmp_path / "in")
    run(recipe("{prune: experts, by: frequency, remove: 50%}"), dense, tmp_path / "out", QUICK)
    torch.save(moe.tokens(), tmp_path / "ids.pt")
    code = (
        "import sys, torch, transformers; folder = sys.argv[1]\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained(folder + '/out')\n"
        "torch.save(model(torch.load(folder + '/ids.pt')).logits.detach(), folder + '/logits.pt')\n"
        "assert not any(name.startswith('compress') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=tmp_path, capture_output=True)
    with torch.no_grad():
        expected = moe.stock("mixtral", tmp_path / "out")(moe.tokens()).logits
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected)


def test_experts_on_disk_are_numbered_anew(tmp_path):
    dense = moe.save("mixtral", tmp_path / "in")
    assert any(".experts.7.w1" in name for name in load_file(dense / "model.safetensors"))
    run(recipe("{prune: experts, by: random, remove: 25%}"), dense, tmp_path / "out", QUICK)
    before, after = load_file(dense / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    numbers = {int(name.split("experts.")[1].split(".")[0]) for name in after if "experts." in name}
    assert numbers == set(range(6))
    for layer, experts in kept(tmp_path / "out").items():
        for new, old in enumerate(experts):
            for part in ("w1", "w2", "w3"):
                stem = f"model.layers.{layer}.block_sparse_moe.experts"
                assert torch.equal(after[f"{stem}.{new}.{part}.weight"], before[f"{stem}.{old}.{part}.weight"])


def test_stuns_distance():
    router, pairs = torch.randn(6, 10), torch.rand(6, 6)
    apart = criteria.get("behaviour").target(router, pairs, rows=2.0, coactivation=0.5)
    for i in range(6):
        for j in range(6):
            expected = 2 * (router[i] - router[j]).square().sum().sqrt() / router.square().sum().sqrt()
            expected -= 0.5 * pairs[i, j] / pairs.mean()
            torch.testing.assert_close(apart[i, j], expected, atol=1e-4, rtol=1e-4)


def test_complete_linkage_and_its_heights():
    points = np.array([0.0, 1.0, 10.0, 11.5, 30.0])
    apart = np.abs(points[:, None] - points)
    assert clusters(apart, 1, 5) == [[0], [1], [2], [3], [4]]
    assert clusters(apart, 1, 3) == [[0, 1], [2, 3], [4]]
    assert clusters(apart, 1, 2) == [[0, 1, 2, 3], [4]]
    # Merged at the largest distance inside: 1, 1.5, 11.5 and 30; one expert always stays.
    assert sorted(merge_heights(apart))[:4] == [1, 1.5, 11.5, 30]
    halves = np.abs(points[:4, None] - points[:4])
    assert clusters(halves[[0, 2, 1, 3]][:, [0, 2, 1, 3]], 2, 2) == [[0, 1], [2, 3]]  # never across groups


@pytest.mark.slow
def test_the_expert_nearest_to_its_clusters_mean_stays(tmp_path):
    dense = moe.save("qwen3_moe", tmp_path / "in")
    run(recipe("{prune: experts, by: behaviour, remove: 50%}"), dense, tmp_path / "out", QUICK)
    model = moe.stock("qwen3_moe", dense)
    for layer, block in moe.blocks(model).items():
        router = block.gate.weight.detach()
        groups = clusters(torch.cdist(router, router).double().numpy(), 1, 4)
        flat = torch.cat([block.experts.gate_up_proj.flatten(1), block.experts.down_proj.flatten(1)], 1).detach()
        for group in groups:
            (stays,) = set(group) & set(kept(tmp_path / "out")[layer])
            far = (flat[group] - flat[group].mean(0)).norm(dim=1)
            assert far[group.index(stays)] <= far.min() * (1 + 1e-5)  # two members are equally near


def test_the_expert_that_adds_most_stays(tmp_path):
    """`stay: reap` with REAP's mean of g(x)·‖f(x)‖₂ computed from the stock model's own router and experts."""
    dense, out = moe.save("mixtral", tmp_path / "in"), tmp_path / "out"
    asked = recipe("{prune: experts, by: behaviour, remove: 50%, stay: reap}")
    run(asked, dense, out, QUICK)
    model = moe.stock("mixtral", dense)
    rows, _ = batches(asked.calibrate, None, model.config)
    for layer, block in moe.blocks(model).items():
        seen = []
        hook = block.register_forward_pre_hook(lambda m, args, seen=seen: seen.append(args[0].flatten(0, 1)))
        with torch.no_grad():
            for batch in rows:
                model(**batch)
        hook.remove()
        x = torch.cat(seen)
        router = block.gate.weight.detach()
        weights, chosen = (x @ router.T).softmax(1).topk(model.config.num_experts_per_tok)
        weights = weights / weights.sum(1, keepdim=True)
        adds = torch.zeros(8)
        for expert in range(8):
            mine, gate = x[(chosen == expert).any(1)], weights[chosen == expert]
            a, b = (mine @ block.experts.gate_up_proj[expert].detach().T).chunk(2, dim=1)
            y = (torch.nn.functional.silu(a) * b) @ block.experts.down_proj[expert].detach().T
            adds[expert] = (gate * y.norm(dim=1)).mean() if len(mine) else 0.0
        groups = clusters(torch.cdist(router, router).double().numpy(), 1, 4)
        assert kept(out)[layer] == sorted(max(group, key=lambda e: adds[e]) for group in groups)


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("by: reap, stay: reap", "makes no clusters to choose from"),
        ("by: behaviour, stay: wanda", "does not rank a layer's experts"),
        ("by: behaviour, stay: reap, merge: average", "leave out `merge` or `stay`"),
    ],
)
def test_who_cannot_choose_of_a_cluster(step, told):
    with pytest.raises(InputError, match=told):
        recipe(f"{{prune: experts, {step}, remove: 50%}}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("merge", "name"), [("average", "mixtral"), ("frequency", "gpt_oss"), ("average", "granitemoe")]
)
def test_merged_experts(merge, name, tmp_path):
    dense, out = moe.save(name, tmp_path / "in"), tmp_path / "out"
    step = f"{{prune: experts, by: router_similarity, remove: 50%, merge: {merge}}}"
    run(recipe(step), dense, out, QUICK)
    merged = json.loads((out / "plan.json").read_text())["steps"][0]["decision"]["merged"]
    before, after = moe.stock(name, dense), moe.stock(name, out)
    for family, rows in merged.items():
        layer = int(family.split(".")[2])
        mix = torch.zeros(4, 8)
        for row, shares in zip(mix, rows, strict=True):
            for index, share in shares.items():
                row[int(index)] = share
        torch.testing.assert_close(mix.sum(1), torch.ones(4))
        assert (mix > 0).sum(0).max() == 1  # every expert is in one cluster
        if merge == "average":
            assert all(len(set(shares.values())) == 1 for shares in rows)
        one, other = moe.blocks(before)[layer].state_dict(), moe.blocks(after)[layer].state_dict()
        for key, value in one.items():
            torch.testing.assert_close(other[key], torch.tensordot(mix, value, 1), atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_a_plan_merges_again(tmp_path):
    dense = moe.save("mixtral", tmp_path / "in")
    asked = recipe("{prune: experts, by: behaviour, remove: 50%, merge: average}")
    run(asked, dense, tmp_path / "out", QUICK)
    apply(plan(asked, dense), dense, tmp_path / "again", QUICK)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "again"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_selective_merging_leaves_large_layers_alone(tmp_path):
    dense = moe.save("mixtral", tmp_path / "in")
    few = plan(recipe("{prune: experts, by: behaviour, remove: 70%, merge: selective}"), dense)
    many = plan(recipe("{prune: experts, by: behaviour, remove: 25%, merge: selective}"), dense)
    assert few.steps[0].decision["merged"]
    assert not many.steps[0].decision["merged"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepseek_v3", "deepseek_v2_groups"])
def test_every_group_of_a_router_loses_as_many(name, tmp_path):
    dense = moe.save(name, tmp_path / "in")
    made = plan(recipe("{prune: experts, by: reap, remove: 25%}"), dense)
    for stay in made.steps[0].decision["kept"].values():
        assert [sum(i < 4 for i in stay), sum(i >= 4 for i in stay)] == [3, 3]


@pytest.mark.slow
def test_a_config_that_asks_for_the_routers_logits(tmp_path):
    dense = moe.save("mixtral", tmp_path / "in", output_router_logits=True)
    run(recipe("{prune: experts, by: reap, remove: 50%}"), dense, tmp_path / "out", QUICK)
    assert moe.stock("mixtral", tmp_path / "out")(moe.tokens()).router_logits is not None


def test_fewer_experts_than_a_router_picks(tmp_path):
    dense = moe.save("mixtral", tmp_path / "in")
    with pytest.raises(BudgetError, match="picks so many that 2 must stay"):
        run(recipe("{prune: experts, by: random, remove: 90%}"), dense, tmp_path / "out", QUICK)
    assert not (tmp_path / "out").exists()


def test_layers_with_different_numbers_of_experts(tmp_path):
    dense, out = moe.save("mixtral", tmp_path / "in"), tmp_path / "out"
    report = run(
        recipe("{prune: experts, by: reap, remove: 30%, allocate: global, widths: per-layer}"), dense, out, QUICK
    )
    assert len({len(stay) for stay in kept(out).values()}) > 1
    assert "trust_remote_code" in report["opens_with"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "qwen2_moe"])
def test_channels_inside_experts_and_heads(name, tmp_path):
    dense, out = moe.save(name, tmp_path / "in"), tmp_path / "out"
    run(recipe("{prune: [heads, channels], by: wanda, remove: 30%}"), dense, out, QUICK)
    config = json.loads((out / "config.json").read_text())
    assert config["moe_intermediate_size" if name == "qwen2_moe" else "intermediate_size"] == 16  # of 24, in eights


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("{prune: channels, by: reap, remove: 20%}", "ranks experts, it cannot rank channels"),
        ("{prune: experts, by: reap, remove: 20%, merge: average}", "makes no clusters to merge"),
        ("{prune: experts, by: wanda, remove: 20%}", "no weight consumes its experts"),
    ],
)
def test_wrong_recipes(step, words, tmp_path):
    dense = moe.save("mixtral", tmp_path / "in")
    with pytest.raises(InputError, match=words):
        run(recipe(step), dense, tmp_path / "out", QUICK)
    assert not (tmp_path / "out").exists()
