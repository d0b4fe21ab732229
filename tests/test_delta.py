"""Task vectors: dropped, divided, stored and added again, each held to a computation of its own."""

import json
import math
from pathlib import Path

import pytest
import torch
import zoo
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from compress.cli import call
from compress.errors import InputError, ModelError, VerifyError
from compress.pipeline import Options, plan, run
from compress.recipe.read import parse_recipe, read_recipe
from compress.steps.delta.drop import keep
from compress.steps.delta.fold import apply_delta
from compress.steps.delta.rescale import row_divisors, search, without_outlier
from compress.steps.delta.sparse import pack, positions_of

SHIPPED = Path(__file__).parent.parent / "recipes/darex.yaml"
TINY = ["calibrate.data=random", "calibrate.samples=4", "calibrate.length=16"]
QUICK = Options(evaluate=False)
NEVER = "model.embed_tokens.weight"  # unchanged by `tune`


def tune(folder, out, size=0.01, seed=5):
    """As if fine-tuned: every tensor but the embeddings a little different."""
    state = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if name != NEVER:
            state[name] = tensor + (size * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)
    out.mkdir()
    for file in folder.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    save_file(state, out / "model.safetensors", {"format": "pt"})


@pytest.fixture
def models(tmp_path):
    zoo.save("llama", tmp_path / "base")
    tune(tmp_path / "base", tmp_path / "tuned")
    (tmp_path / "tuned/merges.txt").write_text("a b")
    return tmp_path / "base", tmp_path / "tuned"


def step(base, text):
    return parse_recipe(
        f"calibrate: {{data: random, samples: 4, length: 16}}\nsteps:\n- {{prune: delta, base: '{base}', {text}}}"
    )


@pytest.mark.parametrize("density", [0.0, 0.001, 0.05, 0.5, 1.0])
def test_sparse_forms_return_what_was_packed(density):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(37, 211, generator=generator)
    kept = torch.rand(values.shape, generator=generator) < density
    parts = pack(values, kept)
    assert ("bits" in parts) == (density > 1 / 8)
    again = torch.zeros(values.numel())
    again[positions_of(parts, values.numel())] = parts["values"]
    assert torch.equal(again.view(values.shape), values * kept)


def test_corrupt_positions_are_refused():
    parts = pack(torch.ones(4, 4), torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="16 places"):
        positions_of(parts, 15)
    with pytest.raises(ValueError, match="places for 3 values"):
        positions_of({**parts, "values": torch.ones(3)}, 16)


def test_dare_keeps_the_mean_and_the_share():
    delta = 1 + torch.randn(400, 500, generator=torch.Generator().manual_seed(0))
    kept = keep(delta, 0.9, "dare", name="a", seed=0)
    assert kept.float().mean().item() == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / delta.numel()))
    spread = math.sqrt(0.9 / 0.1 * delta.square().mean().item() / delta.numel())
    assert (delta * kept / 0.1).mean().item() == pytest.approx(delta.mean().item(), abs=4 * spread)
    assert torch.equal(kept, keep(delta, 0.9, "dare", name="a", seed=0))
    assert not torch.equal(kept, keep(delta, 0.9, "dare", name="b", seed=0))


def test_magnitude_keeps_exactly_the_largest():
    delta = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    kept = keep(delta, 0.75, "magnitude", name="a", seed=0)
    assert kept.sum() == 150
    assert delta[kept].abs().min() >= delta[~kept].abs().max()


@pytest.mark.parametrize("share", [0.99, 0.9, 0.5, 0.3])
def test_row_divisors_minimise_the_papers_objective(share):
    """The authors' loop written out: row by row, value by value, with the stop at 80 % of rows."""
    generator = torch.Generator().manual_seed(1)
    c = torch.randn(9, 12, generator=generator) * torch.logspace(-1, 1.5, 9)[:, None]
    eta, low = 0.45, 1 - share
    phi = 0.5 if share == 0.5 else (1 - 2 * share) / math.log((1 - share) / share)
    best, chosen, turned = [math.inf] * 9, [low] * 9, [False] * 9
    for thousandth in range(math.floor(low * 1000 + 1e-9), 999):
        q = thousandth * 1e-3
        for i in range(9):
            first = sum(c[i].double().tolist())
            second = sum(x * x for x in c[i].double().tolist())
            found = abs(eta * (1 - low / q) * first + eta**2 * phi * second / (4 * q * q) + math.log(2 / 0.05))
            turned[i] = turned[i] or found >= best[i]
            if found < best[i]:
                best[i], chosen[i] = found, q
        if sum(turned) / 9 >= 0.8:
            break
    assert row_divisors(c, share, eta).tolist() == pytest.approx(chosen, abs=1e-6)
    assert len(set(chosen)) > 1


def test_search_refines_about_the_best():
    asked = []

    def objective(q):
        asked.append(q)
        return (q - 0.437) ** 2

    q, value = search(objective, 0.1)
    assert q == pytest.approx(0.44)
    assert value == pytest.approx(0.003**2)
    assert len(asked) == len(set(asked))
    assert min(asked) >= 0.1
    assert max(asked) <= 1
    assert search(lambda q: q, 0.1)[0] == pytest.approx(0.1)


def test_one_outlier_is_left_out():
    assert without_outlier([1.0, 1.2, 0.8, 50.0]) == pytest.approx(1.0)
    assert without_outlier([1.0, 3.0]) == pytest.approx(2.0)


@pytest.mark.parametrize(("name", "by"), [("llama", "magnitude"), ("bert", "dare"), ("gpt2", "darex, q: rows")])
def test_merged_is_base_plus_delta(name, by, tmp_path):
    zoo.save(name, tmp_path / "base")
    tune(tmp_path / "base", tmp_path / "tuned")
    run(step(tmp_path / "base", f"by: {by}, remove: 75%"), tmp_path / "tuned", tmp_path / "delta", QUICK)
    apply_delta(tmp_path / "base", tmp_path / "delta", tmp_path / "merged")
    base, tuned, merged = (load_file(tmp_path / f / "model.safetensors") for f in ("base", "tuned", "merged"))
    stored = load_file(tmp_path / "delta/delta.safetensors")
    tensors = json.loads((tmp_path / "delta/delta.json").read_text())["tensors"]
    assert merged.keys() == tuned.keys()
    sparse = 0
    for key, tensor in merged.items():
        if f"{key}.values" not in stored:
            assert torch.equal(tensor, tuned[key]), key
            continue
        sparse += 1
        bits = stored[f"{key}.{tensors[key]['form']}"]
        kept = torch.zeros(tensor.numel(), dtype=torch.bool)  # unpacked here once more, one entry at a time
        if tensors[key]["form"] == "bits":
            kept = torch.tensor([bool(int(bits[i // 8]) >> (i % 8) & 1) for i in range(tensor.numel())])
        else:
            at = -1
            for gap in bits.tolist():
                at += gap + (gap != 255)
                kept[at] = kept[at] or gap != 255
        delta = torch.zeros(tensor.numel())
        delta[kept] = stored[f"{key}.values"]
        assert torch.allclose(tensor, base[key] + delta.view(tensor.shape), rtol=1e-6, atol=1e-8)
        ratio = (tuned[key] - base[key]).reshape(-1)[kept] / delta[kept]  # the divisor
        if by in ("dare", "magnitude"):
            assert torch.allclose(ratio, torch.full_like(ratio, 0.25 if by == "dare" else 1.0), rtol=1e-3)
        assert 0.15 < kept.float().mean() < 0.35
    assert sparse >= 12
    model = zoo.stock(name, tmp_path / "merged")
    assert torch.isfinite(model(torch.ones(1, 5, dtype=torch.long)).logits).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_dropped_gives_the_fine_tuned_model(dtype, models, tmp_path):
    base, tuned = models
    for folder in models:
        state = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    asked = step(base, "by: dare, remove: 50%")
    whole = asked.model_copy(update={"steps": [asked.steps[0].model_copy(update={"remove": 0.0})]})
    run(whole, tuned, tmp_path / "delta", QUICK)
    apply_delta(base, tmp_path / "delta", tmp_path / "merged")
    before, one, other = (load_file(f / "model.safetensors") for f in (base, tuned, tmp_path / "merged"))
    for name, tensor in one.items():
        # Δ is rounded to the stored dtype and the sum once more; where Δ is the smaller the second undoes the first.
        delta = (tensor.double() - before[name].double()).abs()
        allowed = torch.finfo(dtype).eps * torch.where(delta < tensor.double().abs() / 2, 0, delta)
        assert ((tensor.double() - other[name].double()).abs() <= allowed).all(), name
        assert (tensor == other[name]).float().mean() > 0.8, name
    assert torch.equal(one[NEVER], other[NEVER])
    assert NEVER not in load_file(tmp_path / "delta/delta.safetensors")


def test_global_q_beats_dare(models, tmp_path):
    """One entry in ten stays, and ten times it is so loud that DARE ends up farther away than the base was."""
    base, tuned = tmp_path / "base", tmp_path / "far"
    tune(base, tuned, size=0.02)
    described = run(step(base, "by: darex, remove: 90%"), tuned, tmp_path / "delta")
    outputs = described.found["outputs"]
    assert 0.1 < described.found["q"] <= 1
    assert outputs["pruned"] < outputs["base"] < outputs["dare"]
    assert outputs["pruned"] < 0.5 * outputs["dare"]
    apply_delta(base, tmp_path / "delta", tmp_path / "merged")
    ids = zoo.batches("llama")[0]["input_ids"]
    real, merged = (zoo.stock("llama", folder)(ids).logits for folder in (tuned, tmp_path / "merged"))
    run(step(base, "by: dare, remove: 90%"), tuned, tmp_path / "dare", QUICK)
    apply_delta(base, tmp_path / "dare", tmp_path / "other")
    dare = zoo.stock("llama", tmp_path / "other")(ids).logits
    assert (merged - real).square().mean() < 0.5 * (dare - real).square().mean()


def test_the_reported_difference_is_that_of_the_merged_model(models, tmp_path):
    base, tuned = models
    described = run(step(base, "by: darex, q: layers, remove: 80%"), tuned, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "merged")
    from compress.inputs.text import batches
    from compress.recipe.schema import Calibrate

    model, other = (zoo.stock("llama", folder) for folder in (tuned, tmp_path / "merged"))
    rows, _ = batches(Calibrate(data="random", samples=4, length=16), None, model.config, 0)
    one, two = model(rows[0]["input_ids"]).logits, other(rows[0]["input_ids"]).logits
    top = one.topk(5, -1)
    apart = (two.gather(-1, top.indices) - top.values).square().mean().item()
    assert described.found["outputs"]["pruned"] == pytest.approx(apart, rel=1e-3)


def test_the_shipped_recipe_and_the_command(models, tmp_path, capsys):
    base, tuned = models
    sets = [word for one in [*TINY, f"steps.0.base={base}", "steps.0.seeds=2"] for word in ("--set", one)]
    assert call([str(SHIPPED), str(tuned), str(tmp_path / "delta"), *sets]) == 0
    shown = capsys.readouterr()
    assert "darex" in shown.out
    assert "apply-delta" in shown.err
    names = {file.name for file in (tmp_path / "delta").iterdir()}
    assert {"delta.json", "delta.safetensors", "merges.txt", "generation_config.json"} <= names
    assert not names & {"config.json", "model.safetensors"}
    with safe_open(tmp_path / "delta/delta.safetensors", "pt") as file:
        assert file.metadata()["format"] == "compress-delta"
        assert "lowest" in file.metadata()["about"]
    assert call(["apply-delta", str(base), str(tmp_path / "delta"), str(tmp_path / "merged"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["base"]["name"] == str(base)
    assert (tmp_path / "merged/merges.txt").read_text() == "a b"
    assert not (tmp_path / "merged/delta.json").exists()
    assert json.loads((tmp_path / "merged/config.json").read_text()) == json.loads((tuned / "config.json").read_text())


def test_another_base_is_refused_and_nothing_written(models, tmp_path):
    base, tuned = models
    run(step(base, "by: dare, remove: 90%"), tuned, tmp_path / "delta", QUICK)
    tune(base, tmp_path / "other", seed=9)
    before = sorted(path.name for path in tmp_path.iterdir())
    digest = json.loads((tmp_path / "delta/delta.json").read_text())["base"]["digest"]
    with pytest.raises(InputError, match=rf"other: not the base of .*delta, .*{base} \(digest {digest}"):
        apply_delta(tmp_path / "other", tmp_path / "delta", tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: d["tensors"].pop(NEVER), None),
        (lambda d: d["tensors"]["model.norm.weight"].update(shape=[7]), "model.norm.weight is"),
        (lambda d: d["tensors"]["model.norm.weight"].update(form="bits"), r"lacks model.norm.weight.values"),
        (lambda d: d.update(version=9), "version 9"),
        (lambda d: d.pop("config"), "not the description"),
    ],
)
def test_a_corrupt_description(edit, words, models, tmp_path):
    base, tuned = models
    run(step(base, "by: dare, remove: 90%"), tuned, tmp_path / "delta", QUICK)
    file = tmp_path / "delta/delta.json"
    data = json.loads(file.read_text())
    edit(data)
    file.write_text(json.dumps(data))
    with pytest.raises(VerifyError if words is None else (InputError, ModelError), match=words):
        apply_delta(base, tmp_path / "delta", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_models_that_do_not_belong_together(models, tmp_path):
    base, tuned = models
    zoo.save("llama", tmp_path / "wide", hidden_size=64, intermediate_size=96, vocab_size=50)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InputError, match="wide: not the base of"):
        run(step(tmp_path / "wide", "by: dare, remove: 90%"), tuned, tmp_path / "delta", QUICK)
    with pytest.raises(InputError, match="its own base"):
        run(step(base, "by: dare, remove: 90%"), base, tmp_path / "delta", QUICK)
    with pytest.raises(InputError, match="has no plan"):
        plan(read_recipe(SHIPPED), tuned)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
