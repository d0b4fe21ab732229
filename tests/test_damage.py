"""What cuts cost: a block's own error by direct products and solves, the divergence by a model that is really cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zoo
from torch.nn import functional

from compress.checkpoint.open import open_checkpoint
from compress.damage.block import pruned_block
from compress.damage.divergence import Cut, divergences
from compress.damage.reconstruction import errors_by_count, reconstruction
from compress.damage.remembered import Remembered
from compress.errors import InputError
from compress.model.model import Model
from compress.model.weights import Weights, runnable_model
from compress.repair.least_squares import least_squares


def mask(family, gone):
    kept = np.ones(family.size, bool)
    kept[list(gone)] = False
    return kept


@pytest.mark.parametrize("repaired", ["not", "mean", "fitted"])
def test_errors_by_count_are_those_of_each_cut(repaired):
    torch.manual_seed(0)
    x = torch.randn(400, 7, dtype=torch.float64) @ torch.randn(7, 7, dtype=torch.float64) + 0.5
    weight = torch.randn(5, 7, dtype=torch.float64)
    gram, mean = x.T @ x / len(x), x.mean(0)
    found = errors_by_count(weight, (gram, mean), repaired)
    for count in range(8):
        keep = torch.arange(7) < count
        if repaired == "not":
            wanted = (x[:, ~keep] @ weight[:, ~keep].T).square().sum(1).mean()
        elif repaired == "mean":
            wanted = ((x - mean)[:, ~keep] @ weight[:, ~keep].T).square().sum(1).mean()
        else:
            damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(7, dtype=torch.float64)
            root = torch.linalg.cholesky(damped).T  # rows whose products are the damped ones
            best = torch.linalg.lstsq(root[:, keep], root @ weight.T).solution if count else weight[:, :0].T
            wanted = (root @ weight.T - root[:, keep] @ best).square().sum()
        assert found[count] == pytest.approx(float(wanted), rel=1e-6, abs=1e-9)


def test_a_family_s_error_counts_heads_as_blocks_of_inputs(tmp_path):
    source = Model.of(zoo.save("llama", tmp_path))
    family = source.graph.families["model.layers.0.self_attn.heads"]
    name = "model.layers.0.self_attn.o_proj.weight"
    weight = source.weights.read(name).double()
    x = torch.randn(200, weight.shape[1], dtype=torch.float64)
    stats = {"input_gram": {name: x.T @ x / 200}, "input_mean": {name: x.mean(0)}}
    order = np.array([1, 0, *range(2, family.size)])
    found = reconstruction(source, family, order, stats, "not")
    whole = (x @ weight.T).square().sum()
    for count in range(family.size + 1):
        keep = np.zeros(family.size, bool)
        keep[order[:count]] = True
        gone = torch.from_numpy(~source.graph.masks(name, {family.name: keep})[1])
        assert found[count] == pytest.approx(float((x[:, gone] @ weight[:, gone].T).square().sum() / whole), abs=1e-9)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_divergence_is_that_of_a_model_cut_for_good(name, tmp_path):
    """KL divergence of every position, by a stock model whose weights are set to zero by hand."""
    zoo.save(name, tmp_path)
    clear = zoo.stock(name, tmp_path)
    with torch.no_grad():
        for parameter in clear.parameters():  # as it is, all tokens are as likely, whatever the blocks do
            parameter.mul_(8 if parameter.dim() == 2 else 1)
    clear.save_pretrained(tmp_path)
    source, batches = Model.of(open_checkpoint(tmp_path)), zoo.batches(name)
    families = [family for family in source.graph.of_kind("heads", "channels") if family.layer in (0, 2)]
    candidates = [{family.name: mask(family, range(family.size // 2))} for family in families]
    candidates.append({key: value for one in candidates for key, value in one.items()})
    found = divergences(source, batches, [Cut(kept) for kept in candidates])
    dense, stock = (zoo.stock(name, tmp_path) for _ in range(2))
    for kept, value in zip(candidates, found, strict=True):
        stock.load_state_dict(dense.state_dict())
        state = stock.state_dict()
        for tensor in {member.tensor for key in kept for member in source.graph.families[key].members}:
            for dim, keep in source.graph.masks(tensor, kept).items():
                state[tensor].index_fill_(dim, torch.from_numpy(np.flatnonzero(~keep)), 0)
        each = []
        with torch.no_grad():
            for batch in batches:
                p, q = dense(**batch).logits.log_softmax(-1), stock(**batch).logits.log_softmax(-1)
                each.append(functional.kl_div(q, p, log_target=True, reduction="none").sum(-1).flatten())
        assert value == pytest.approx(float(torch.cat(each).mean()), rel=1e-3) and value > 1e-3


def test_a_repaired_cut_diverges_less_and_the_block_is_as_it_was(tmp_path):
    source, batches = Model.of(zoo.save("llama", tmp_path)), zoo.batches("llama", (4, 4), 24)
    family = source.graph.families["model.layers.1.mlp.channels"]
    name, seen = "model.layers.1.mlp.down_proj.weight", []
    stock = zoo.stock("llama", tmp_path)
    stock.model.layers[1].mlp.down_proj.register_forward_hook(lambda m, args, out: seen.append(args[0].flatten(0, 1)))
    with torch.no_grad():
        for batch in batches:
            stock(**batch)
    x = torch.cat(seen)

    def repair(name, weight, bias, keep):
        return least_squares(weight, bias, keep, x.T @ x / len(x), x.mean(0))

    kept = {family.name: mask(family, range(0, family.size, 2))}
    plain, mended = divergences(source, batches, [Cut(kept), Cut(kept, repair)])
    assert 0 < mended < plain
    model = runnable_model(source.checkpoint)
    weights = Weights(source.checkpoint, model)
    weights.load("model.layers.1")
    before = {key: value.clone() for key, value in model.get_submodule("model.layers.1").state_dict().items()}
    with pruned_block(source, model, "model.layers.1", kept, repair):
        inside = model.get_parameter(name)
        assert not inside[:, ::2].any() and not inside[:, 1::2].equal(before["mlp.down_proj.weight"][:, 1::2])
    for key, value in model.get_submodule("model.layers.1").state_dict().items():
        assert value.equal(before[key])


def test_experts_and_layers_are_tried_out_too(tmp_path):
    source, batches = Model.of(zoo.save("mixtral", tmp_path / "m")), zoo.batches("mixtral")
    family = next(family for family in source.graph.of_kind("experts") if family.layer == 1)
    layers = next(iter(source.graph.of_kind("layers")))
    found = divergences(source, batches, [Cut({family.name: mask(family, [0])}), Cut({layers.name: mask(layers, [1])})])
    assert (found > 1e-6).all()
    stock, dense = (zoo.stock("mixtral", tmp_path / "m") for _ in range(2))
    stock.model.layers[1].forward = lambda hidden_states, *args, **kwargs: hidden_states
    with torch.no_grad():
        p, q = (torch.cat([one(**b).logits.log_softmax(-1) for b in batches]) for one in (dense, stock))
    assert found[1] == pytest.approx(
        float(functional.kl_div(q, p, log_target=True, reduction="none").sum(-1).mean()), rel=1e-4
    )


def test_families_that_span_blocks_are_refused(tmp_path):
    source = Model.of(zoo.save("llama", tmp_path))
    hidden = source.graph.of_kind("hidden")[0]
    with pytest.raises(InputError, match="spans several blocks"):
        divergences(source, zoo.batches("llama")[:1], [Cut({hidden.name: mask(hidden, [0])})])


def test_what_was_measured_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path))
    kept, whole = {"a": np.array([True, False]), "b": np.array([True, True])}, np.array([True, True])
    Remembered("one").put({Remembered.of(kept): 0.25})
    assert Remembered("one").get({"a": kept["a"]}) == 0.25  # families that stay whole make no difference
    assert Remembered("one").get({"a": whole}) is None and Remembered("two").get(kept) is None
    Remembered("one").file.write_text("{")  # damaged: as if nothing were there
    assert Remembered("one").get(kept) is None
