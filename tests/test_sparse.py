"""Single weights: masks, updates and layer ratios against plain loops; stock transformers open what is written."""

import json

import moe
import numpy as np
import pytest
import torch
import zoo
from safetensors.torch import load_file

from compress.checkpoint.open import open_checkpoint
from compress.errors import BudgetError, InputError
from compress.inputs.text import batches
from compress.model.model import Model
from compress.pipeline import Options, apply, plan, run
from compress.ratios.ecoflap import spend
from compress.recipe.read import parse_recipe
from compress.registry import criteria, ratios
from compress.sparse.losses import WholeModel
from compress.sparse.masks import in_blocks, smallest
from compress.sparse.matrices import Matrices

QUICK = Options(evaluate=False)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))


def recipe(step):
    return parse_recipe(f"calibrate: {{data: random, samples: 6, length: 24, batch: 3}}\nsteps:\n- {step}\n")


def rows(folder):
    checkpoint = open_checkpoint(folder)
    return batches(recipe("{prune: weights, by: wanda, remove: 50%}").calibrate, None, zoo_config(checkpoint))[0]


def zoo_config(checkpoint):
    from compress.model.build import load_config

    return load_config(checkpoint)


def projections(model):
    return {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name
    }


def inputs_of(model, modules, given):
    """What each module is given, all tokens together `[tokens, in]`."""
    seen = {name: [] for name in modules}
    hooks = [
        module.register_forward_pre_hook(lambda m, args, name=name: seen[name].append(args[0].flatten(0, -2)))
        for name, module in modules.items()
    ]
    with torch.no_grad():
        for batch in given:
            model(**batch)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def test_smallest_of_each_row_and_of_all():
    saliency = torch.tensor([[4.0, 1.0, 3.0, 2.0], [8.0, 7.0, 6.0, 5.0]])
    assert smallest(saliency, 0.5, "row").tolist() == [[False, True, False, True], [False, False, True, True]]
    assert smallest(saliency, 0.5, "layer").tolist() == [[True] * 4, [False] * 4]
    assert not smallest(saliency, 0.1, "row").any()


@pytest.mark.parametrize(("zeros", "block"), [(2, 4), (1, 4), (4, 8)])
def test_n_of_every_m(zeros, block):
    saliency = torch.rand(5, 16)
    gone = in_blocks(saliency, zeros, block)
    for row, mask in zip(saliency, gone, strict=True):
        for start in range(0, 16, block):
            order = row[start : start + block].argsort()
            assert set((mask[start : start + block]).nonzero().flatten().tolist()) == set(order[:zeros].tolist())


@pytest.mark.parametrize("propagate", ["pruned", "dense"])
def test_wanda_block_after_block(propagate, tmp_path):
    zoo.save("llama", tmp_path / "in")
    run(
        recipe(f"{{prune: weights, by: wanda, remove: 50%, propagate: {propagate}}}"),
        tmp_path / "in",
        tmp_path / "out",
        QUICK,
    )
    model, given = zoo.stock("llama", tmp_path / "in"), rows(tmp_path / "in")
    written = load_file(tmp_path / "out" / "model.safetensors")
    modules = projections(model)
    dense = inputs_of(model, modules, given)
    for layer in range(len(model.model.layers)):
        own = {name: module for name, module in modules.items() if f".layers.{layer}." in name}
        seen = inputs_of(model, own, given) if propagate == "pruned" else dense
        for name, module in own.items():
            saliency = module.weight.abs() * seen[name].norm(dim=0)
            expected = module.weight.detach().clone()
            for row, score in zip(expected, saliency, strict=True):
                row[score.argsort()[: len(row) // 2]] = 0
            assert (written[name] == expected).float().mean() > 0.999  # rounding may swap two equal saliencies
            module.weight.data = expected
    untouched = {name for name in written if name not in modules}
    before = load_file(tmp_path / "in" / "model.safetensors")
    assert all(torch.equal(written[name], before[name]) for name in untouched)
    zoo.stock("llama", tmp_path / "out")


def test_sparsegpt_is_the_direct_surgeon():
    """Column by column: zero what costs least, and solve exactly for the columns to the right."""
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(6, 10, generator=generator), torch.randn(64, 10, generator=generator)
    gram = x.T @ x / 64
    made = criteria.get("sparsegpt").target(weight, gram, 0.5, damping=0.01)
    hessian = gram.double() + 0.01 * gram.diagonal().mean() * torch.eye(10)
    # The scores use the pivots of the inverse's Cholesky factor: 1 / pivot² = [H_{j:,j:}⁻¹]_jj is what is left to move.
    left = [float(torch.linalg.inv(hessian[j:, j:])[0, 0]) for j in range(10)]
    scores = weight.double().square() / torch.tensor(left)
    gone = scores <= scores.flatten().sort().values[29]
    expected = weight.double().clone()
    for j in range(10):
        inverse = torch.linalg.inv(hessian[j:, j:])
        error = torch.where(gone[:, j], expected[:, j], 0.0) / inverse[0, 0]
        expected[:, j:] -= error[:, None] * inverse[0]
        expected[gone[:, j], j] = 0
    torch.testing.assert_close(made.double(), expected, atol=1e-4, rtol=1e-4)
    assert int((made == 0).sum()) == 30
    loss = lambda w: float(((x @ (w - weight).T) ** 2).sum())  # noqa: E731
    assert loss(made) < loss(weight * ~gone)


@pytest.mark.parametrize("width", [16, 144])
def test_sparsegpt_in_blocks(width):
    weight, x = torch.randn(8, width), torch.randn(400, width)
    x[:, 3] = 0  # an input that is never active
    made = criteria.get("sparsegpt").target(weight, x.T @ x / 400, 0.5, (2, 4))
    assert ((made.view(8, -1, 4) == 0).sum(-1) >= 2).all()
    assert torch.isfinite(made).all() and (made[:, 3] == 0).all()


def test_gblm_adds_gradients(tmp_path):
    weight, norm, gradient = torch.randn(4, 6), torch.rand(6), torch.rand(4, 6)
    found = criteria.get("gblm").target(weight, norm, gradient, alpha=7.0)
    torch.testing.assert_close(found, weight.abs() * (norm + 7 * gradient))
    zoo.save("llama", tmp_path / "in")
    run(recipe("{prune: weights, by: gblm, remove: 50%}"), tmp_path / "in", tmp_path / "out", QUICK)
    zoo.stock("llama", tmp_path / "out")


def matrices(folder):
    source = Model.of(open_checkpoint(folder))
    names = {name: 1 for name in source.graph.layouts if ".layers." in name and "_proj" in name}
    stats = {"input_norm": {name: torch.rand(source.graph.layouts[name][1].size) for name in names}}
    unused = [lambda asked: pytest.fail("neither losses nor saliencies")] * 2
    return Matrices(source.graph, names, source.weights.read, stats, *unused)


def test_erk_densities(tmp_path):
    zoo.save("llama", tmp_path / "in")
    given = matrices(tmp_path / "in")
    found = ratios.get("erk").bind({})(given, 0.5)
    kept = sum((1 - found[name]) * size for name, size in given.sizes.items())
    assert kept == pytest.approx(0.5 * given.total)
    open_ = [name for name in found if found[name] > 0]
    raw = {name: sum(given.shapes[name]) / np.prod(given.shapes[name]) for name in open_}
    scales = {round((1 - found[name]) / raw[name], 6) for name in open_}
    assert len(scales) == 1 and all(raw[name] * scales.copy().pop() <= 1.001 for name in open_)


def test_owl_ratios(tmp_path):
    zoo.save("llama", tmp_path / "in")
    given = matrices(tmp_path / "in")
    found = ratios.get("owl").bind({"times": 2.0})(given, 0.6)
    outliers = []
    for names in given.blocks:
        scores = torch.cat([(given.weight(n).abs() * given.stats["input_norm"][n]).flatten() for n in names])
        outliers.append(float((scores > 2 * scores.mean()).float().mean()))
    scaled = (np.array(outliers) - min(outliers)) / (max(outliers) - min(outliers)) * 0.16
    expected = 0.6 - (scaled - scaled.mean())  # blocks are alike, so their plain mean is the weighted one
    np.testing.assert_allclose([found[names[0]] for names in given.blocks], expected, atol=1e-6)


def test_ecoflap_spends_by_score():
    sizes = np.array([100.0, 100.0, 100.0])
    kept = spend(np.array([1.0, 3.0, 0.0]), sizes, 150.0, least=0.4)
    np.testing.assert_allclose(kept, [40 + 7.5, 40 + 22.5, 40], atol=1e-6)
    kept = spend(np.array([1.0, 100.0, 1.0]), sizes, 240.0, least=0.4)
    assert kept[1] == 100 and kept.sum() == pytest.approx(240)


@pytest.mark.parametrize("batches", [1, 3])
def test_sensitivity_is_two_forwards_a_batch(batches, tmp_path):
    """|L(θ + εz) − L(θ − εz)| / 2ε on the stock model, large ε so that one side alone is another number."""
    checkpoint, name, step = zoo.save("llama", tmp_path / "in"), "model.layers.1.mlp.down_proj.weight", 0.3
    given = [{"input_ids": rows} for rows in torch.randint(3, zoo.VOCABULARY, (batches, 2, 12)).unbind()]
    losses = WholeModel(checkpoint, given, "cpu")
    found = losses.sensitivity(name, step, torch.Generator().manual_seed(5))
    model, generator, expected = zoo.stock("llama", tmp_path / "in"), torch.Generator().manual_seed(5), []
    weight = model.get_parameter(name)
    dense = weight.detach().clone()
    for batch in given:
        noise, sides = torch.randn(weight.shape, generator=generator), []
        for sign in (1, -1):
            weight.data = dense + sign * step * noise
            with torch.no_grad():
                logits = model(**batch).logits[:, :-1].flatten(0, 1)
            sides.append(float(torch.nn.functional.cross_entropy(logits, batch["input_ids"][:, 1:].flatten())))
        expected.append((sides[0] - sides[1]) / (2 * step))
    assert found == pytest.approx(sum(abs(value) for value in expected), rel=1e-3)
    if batches > 1:
        assert min(expected) < 0 < max(expected)  # so that a missing absolute value shows
    assert losses.sensitivity(name, step, torch.Generator().manual_seed(5)) == pytest.approx(found, rel=1e-3)


def test_ecoflap_runs(tmp_path):
    zoo.save("llama", tmp_path / "in")
    run(recipe("{prune: weights, by: wanda, remove: 50%, allocate: ecoflap}"), tmp_path / "in", tmp_path / "out", QUICK)
    shares = json.loads((tmp_path / "out" / "plan.json").read_text())["steps"][0]["decision"]["sparsity"]
    assert len(set(shares.values())) > 1 and max(shares.values()) <= 0.6 + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
@pytest.mark.parametrize("by", ["magnitude", "sparsegpt", "taylor"])
def test_other_layouts(name, by, tmp_path):
    zoo.save(name, tmp_path / "in")
    run(recipe(f"{{prune: weights, by: {by}, pattern: '2:4'}}"), tmp_path / "in", tmp_path / "out", QUICK)
    zoo.stock(name, tmp_path / "out")
    shares = json.loads((tmp_path / "out" / "plan.json").read_text())["steps"][0]["decision"]["sparsity"]
    written = load_file(tmp_path / "out" / "model.safetensors")
    first = min(shares)
    weight = next(t for key, t in written.items() if key.endswith(first) or first.endswith(key)).float()
    inputs = weight.T if name == "gpt2" else weight
    assert ((inputs.reshape(len(inputs), -1, 4) == 0).sum(-1) >= 2).all()


def test_a_pattern_says_how_many_are_kept(tmp_path):
    zoo.save("llama", tmp_path / "in")
    run(recipe("{prune: weights, by: magnitude, pattern: '1:4'}"), tmp_path / "in", tmp_path / "out", QUICK)
    name = "model.layers.0.mlp.up_proj.weight"
    before, after = (load_file(tmp_path / side / "model.safetensors")[name] for side in ("in", "out"))
    groups, dense = after.reshape(len(after), -1, 4), before.reshape(len(before), -1, 4)
    assert ((groups != 0).sum(-1) == 1).all(), "one of four"
    assert torch.equal(groups.abs().amax(-1), dense.abs().amax(-1)), "the largest"


def test_experts_then_weights(tmp_path):
    dense = moe.save("mixtral", tmp_path / "in")
    steps = "{prune: experts, by: behaviour, remove: 25%}\n- {prune: weights, by: wanda, until: 40%}"
    run(recipe(steps), dense, tmp_path / "out", QUICK)
    model, whole = moe.stock("mixtral", tmp_path / "out"), moe.stock("mixtral", dense)
    left = sum(int((p != 0).sum()) for p in model.parameters())
    assert left / sum(p.numel() for p in whole.parameters()) == pytest.approx(0.6, abs=0.02)
    assert (model.model.layers[0].mlp.gate.weight != 0).all()  # routers stay whole


@pytest.mark.slow
def test_a_plan_zeroes_the_same(tmp_path):
    zoo.save("llama", tmp_path / "in")
    asked = recipe("{prune: weights, by: wanda, remove: 60%, allocate: owl}")
    run(asked, tmp_path / "in", tmp_path / "out", QUICK)
    apply(plan(asked, tmp_path / "in"), tmp_path / "in", tmp_path / "again", QUICK)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "again"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("step", "error", "words"),
    [
        ("{prune: weights, by: wanda, pattern: '5:7'}", InputError, "no multiple of 1 x 7"),
        ("{prune: weights, by: wanda, pattern: '4:2'}", InputError, "a pattern is n:m"),
        ("{prune: weights, by: wanda, remove: 50%, pattern: '2:4'}", InputError, "exactly one of"),
        ("{prune: weights, by: fluctuation, remove: 50%}", InputError, "scores units, not single weights"),
        ("{prune: heads, by: sparsegpt, remove: 50%}", InputError, "updates single weights"),
        ("{prune: weights, by: wanda, until: 99%}", BudgetError, "can go"),
        ("{prune: weights, by: wanda, remove: 50%, skip: [nothing*]}", InputError, "is the name of no tensor"),
    ],
)
def test_wrong_steps(step, error, words, tmp_path):
    zoo.save("llama", tmp_path / "in")
    with pytest.raises(error, match=words):
        run(recipe(step), tmp_path / "in", tmp_path / "out", QUICK)
    assert not (tmp_path / "out").exists()
