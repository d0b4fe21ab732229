"""Blocks of weights that go as a whole, and one threshold over all matrices."""

import json

import moe
import numpy as np
import pytest
import torch
import zoo
from safetensors.torch import load_file, save_file

from compress.errors import InputError
from compress.pipeline import Options, plan, run
from compress.recipe.read import parse_recipe
from compress.sparse.masks import in_tiles

QUICK = Options(evaluate=False)


def pruned(step, model_in, out):
    text = f"calibrate: {{data: random, samples: 6, length: 24, batch: 3}}\nsteps: [{step}]"
    run(parse_recipe(text), model_in, out, QUICK)
    return load_file(out / "model.safetensors")


def inside(weights):
    return {name: tensor for name, tensor in weights.items() if ".layers." in name and "_proj" in name}


def test_tiles_of_the_smallest_sums_go():
    saliency = torch.rand(8, 12, generator=torch.Generator().manual_seed(0))
    gone = in_tiles(saliency, 0.5, (4, 3))
    sums = {(i, j): float(saliency[4 * i : 4 * i + 4, 3 * j : 3 * j + 3].sum()) for i in range(2) for j in range(4)}
    least = sorted(sums, key=lambda place: sums[place])[:4]
    for (i, j), _ in sums.items():
        tile = gone[4 * i : 4 * i + 4, 3 * j : 3 * j + 3]
        assert tile.all() if (i, j) in least else not tile.any()


def test_blocks_go_whole_in_every_matrix(tmp_path):
    zoo.save("llama", tmp_path / "in")
    written = inside(pruned("{prune: weights, by: wanda, remove: 50%, block: 8x8}", tmp_path / "in", tmp_path / "out"))
    for name, weight in written.items():
        rows, columns = weight.shape
        tiles = (weight == 0).reshape(rows // 8, 8, columns // 8, 8).float().mean((1, 3))
        assert set(tiles.flatten().tolist()) == {0.0, 1.0}, name
        assert tiles.mean() == pytest.approx(0.5), name


def test_blocks_of_every_expert(tmp_path):
    dense = moe.save("mixtral", tmp_path / "in")
    written = pruned("{prune: weights, by: magnitude, remove: 50%, block: 8x8}", dense, tmp_path / "out")
    experts = {name: (tensor == 0).float() for name, tensor in written.items() if ".experts." in name}
    assert len(experts) == 3 * 8 * 3
    for name, zero in experts.items():
        tiles = zero.reshape(len(zero) // 8, 8, -1, 8).mean((1, 3))
        assert set(tiles.flatten().tolist()) <= {0.0, 1.0}, name
        if ".w1." in name:  # stacked with w3 into one matrix
            zero = torch.cat([zero, experts[name.replace(".w1.", ".w3.")]])
        if ".w3." not in name:
            assert zero.mean() == pytest.approx(0.5), name


@pytest.mark.parametrize("allocate", ["global", "standardized"])
def test_one_threshold_over_all_matrices(allocate, tmp_path):
    zoo.save("llama", tmp_path / "in")
    file = tmp_path / "in" / "model.safetensors"
    weights = load_file(file)
    for i, tensor in enumerate(inside(weights).values()):  # layers of very different sizes
        tensor *= 1 + i % 3
    save_file(weights, file, {"format": "pt"})
    step = f"{{prune: weights, by: magnitude, remove: 40%, compare: layer, allocate: {allocate}}}"
    pruned(step, tmp_path / "in", tmp_path / "out")
    shares = json.loads((tmp_path / "out" / "plan.json").read_text())["steps"][0]["decision"]["sparsity"]
    stored = inside(load_file(tmp_path / "in" / "model.safetensors"))
    scores = {}
    for name, weight in stored.items():
        score = np.abs(weight.double().numpy())
        scores[name] = (score - score.mean()) / score.std(ddof=1) if allocate == "standardized" else score
    limit = np.quantile(np.concatenate([score.ravel() for score in scores.values()]), 0.4)
    assert shares.keys() == scores.keys()
    for name, score in scores.items():
        assert shares[name] == pytest.approx((score <= limit).mean(), abs=2e-3)
    apart = max(shares.values()) - min(shares.values())
    assert apart > 0.3 if allocate == "global" else 0.001 < apart < 0.1


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("{prune: weights, by: wanda, remove: 50%, block: 16}", "rows x columns"),
        ("{prune: weights, by: wanda, remove: 50%, block: 8x8, compare: row}", "leave out"),
        ("{prune: weights, by: wanda, pattern: '2:4', block: 8x8}", "leave out"),
        ("{prune: weights, by: sparsegpt, remove: 50%, block: 8x8}", "scores nothing beforehand"),
        ("{prune: weights, by: sparsegpt, remove: 50%, allocate: global}", "scores nothing beforehand"),
        ("{prune: weights, by: wanda, remove: 50%, block: 7x8}", "no multiple of 7 x 8"),
    ],
)
def test_wrong_steps(step, said, tmp_path):
    zoo.save("llama", tmp_path / "in")
    with pytest.raises(InputError, match=said):
        pruned(step, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pattern", ["remove: 50%, block: 7x8", "pattern: '2:5'"])
def test_what_does_not_divide_is_said_before_anything_is_calibrated(pattern, tmp_path, monkeypatch):
    zoo.save("llama", tmp_path / "in")
    monkeypatch.setattr("compress.steps.weights.collect", lambda *rest, **more: pytest.fail("calibrated"))
    recipe = parse_recipe(f"calibrate: {{data: random}}\nsteps: [{{prune: weights, by: wanda, {pattern}}}]")
    with pytest.raises(InputError, match="leaves it whole"):
        plan(recipe, tmp_path / "in", QUICK)
