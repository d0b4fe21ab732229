"""Merging experts whose inner channels lie in different orders."""

import json

import moe
import pytest
import torch

from compress.errors import InputError
from compress.pipeline import Options, apply, plan, run
from compress.recipe.read import parse_recipe

pytestmark = pytest.mark.slow

QUICK = Options(evaluate=False)
STEP = "steps: [{{prune: experts, by: behaviour, remove: 50%, merge: average, align: {}}}]"


def pairs(name, folder):
    """A model in which every odd expert is the one before it, its inner channels shuffled."""
    model = moe.stock(name, moe.save(name, folder / "random"))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    last = name == "gpt_oss"  # [in, out] and gate and up in turns; elsewhere [out, in] and one behind the other
    both = torch.stack([2 * order, 2 * order + 1], 1).flatten() if last else torch.cat([order, order + 24])
    with torch.no_grad():
        for block in moe.blocks(model).values():
            experts = block.experts
            for one in range(0, 8, 2):
                experts.gate_up_proj[one + 1] = experts.gate_up_proj[one].index_select(int(last), both)
                experts.down_proj[one + 1] = experts.down_proj[one].index_select(int(not last), order)
                if last:
                    experts.gate_up_proj_bias[one + 1] = experts.gate_up_proj_bias[one].normal_()[both]
                    experts.down_proj_bias[one + 1] = experts.down_proj_bias[one]
                moe.router(block).weight[one + 1] = 1.001 * moe.router(block).weight[one]
    model.save_pretrained(folder / "in")
    return folder / "in"


def farthest(name, before, after):
    """How far the weights of an expert that was merged are from the nearest of the dense model's, at most."""
    old, new = (moe.blocks(moe.stock(name, folder)).values() for folder in (before, after))
    found = []
    for one, other in zip(old, new, strict=True):
        assert len(other.experts.down_proj) == 4
        for i in range(4):
            apart = [
                max(float((own[i] - each[j]).abs().max()) for own, each in zip(*both, strict=True))
                for both in [[[p.detach() for p in m.experts.parameters()] for m in (other, one)]]
                for j in range(8)
            ]
            found.append(min(apart))
    return max(found)


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "gpt_oss", "granitemoe"])
def test_the_mean_of_two_equal_experts_is_either_of_them(name, tmp_path):
    dense = pairs(name, tmp_path)
    for align in ("true", "false"):
        run(parse_recipe(STEP.format(align)), dense, tmp_path / align, QUICK)
    assert farthest(name, dense, tmp_path / "true") < 1e-6
    assert farthest(name, dense, tmp_path / "false") > 1e-3


def test_a_plan_aligns_alike(tmp_path):
    dense = pairs("mixtral", tmp_path)
    apply(plan(parse_recipe(STEP.format("true")), dense, QUICK), dense, tmp_path / "out", QUICK)
    assert farthest("mixtral", dense, tmp_path / "out") < 1e-6
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["steps"][0]["decision"]["merged"]


def test_nothing_to_align():
    with pytest.raises(InputError, match="only what is merged is aligned"):
        parse_recipe("steps: [{prune: experts, by: behaviour, remove: 50%, align: true}]")
