"""Statistics against plain formulas on the whole model, gradients against plain autograd, and the cache."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch
import zoo

import compress.calibrate.collect as collect_module
from compress.calibrate.collect import collect
from compress.calibrate.totals import STRIP, add_gram, mirror, moments
from compress.console import switches
from compress.errors import ModelError
from compress.graph.families import Family, Graph, Member
from compress.graph.layout import Axis, Product
from compress.stream.stream import Stream
from compress.tasks.choose import task_of

INPUT = ("input_norm", "input_mean", "input_variance", "input_abs_mean", "input_gram")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(switches, "quiet", True)


def inputs_of(reference, keys, batches):
    """What each projection is given, float64 `[tokens, in]`."""
    seen = defaultdict(list)
    hooks = [
        reference.get_submodule(key.removesuffix(".weight")).register_forward_pre_hook(
            lambda _, args, key=key: seen[key].append(args[0].detach().double().flatten(0, -2))
        )
        for key in keys
    ]
    with torch.no_grad():
        for batch in batches:
            reference(**{k: v for k, v in batch.items() if k != "labels"})
    for hook in hooks:
        hook.remove()
    return {key: torch.cat(parts) for key, parts in seen.items()}


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "albert", "t5"])
def test_input_statistics(name, tmp_path):
    checkpoint, batches = zoo.save(name, tmp_path), zoo.batches(name)
    reference, graph = zoo.stock(name, tmp_path), zoo.graph(name)
    keys = zoo.projections(reference, graph.blocks)
    stats = collect(checkpoint, graph, dict.fromkeys(INPUT, keys), batches)
    for key, x in inputs_of(reference, keys, batches).items():
        expected = {
            "input_norm": (x.square().sum(0) / 6).sqrt(),
            "input_mean": x.mean(0),
            "input_variance": x.var(0, correction=0),
            "input_abs_mean": x.abs().mean(0),
            "input_gram": x.T @ x / len(x),
        }
        for statistic, value in expected.items():
            found = stats[statistic][key]
            assert found.dtype == torch.float32
            assert torch.allclose(found.double(), value, atol=1e-5, rtol=1e-5), (statistic, key)


def test_variance_far_from_zero():
    x = 1000 + 0.1 * torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))
    sums = moments(x, frozenset({"sum", "square"}))
    variance = sums["square"] / 5000 - (sums["sum"] / 5000).square()
    assert torch.allclose(variance, x.double().var(0, correction=0), rtol=1e-3)


@pytest.mark.parametrize("size", [5, STRIP, 2 * STRIP + 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_a_gram_matrix_and_its_mirror(size, dtype):
    given = [torch.randn(30, size, generator=torch.Generator().manual_seed(i)).to(dtype) for i in range(2)]
    stack = torch.zeros(2, size, size)
    for x in given:
        add_gram(stack[1], x)
    mirror(stack)
    assert torch.allclose(stack[1], sum(x.float().T @ x.float() for x in given), atol=1e-4)
    assert not stack[0].any()


def test_head_and_embedding_inputs(tmp_path):
    checkpoint, batches = zoo.save("llama", tmp_path, tie_word_embeddings=False), zoo.batches("llama")
    keys = {"lm_head.weight", "model.embed_tokens.weight"}
    stats = collect(checkpoint, zoo.graph("llama"), {"input_norm": keys, "input_mean": keys}, batches)
    x = inputs_of(zoo.stock("llama", tmp_path), ["lm_head.weight"], batches)["lm_head.weight"]
    assert torch.allclose(stats["input_mean"]["lm_head.weight"].double(), x.mean(0), atol=1e-6)
    counts = torch.bincount(torch.cat([b["input_ids"].flatten() for b in batches]), minlength=zoo.VOCABULARY)
    assert torch.allclose(stats["input_norm"]["model.embed_tokens.weight"], (counts / 6).sqrt())


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_block_statistics(name, tmp_path):
    checkpoint, batches, graph = zoo.save(name, tmp_path), zoo.batches(name), zoo.graph(name)
    reference = zoo.stock(name, tmp_path)
    cosines = defaultdict(list)

    def hook(block):
        def see(_, args, kwargs, output):
            before, after = (args or (kwargs["hidden_states"],))[0], output if torch.is_tensor(output) else output[0]
            cosines[block].append(torch.cosine_similarity(before, after, dim=-1).flatten())

        return see

    for block in graph.blocks:
        reference.get_submodule(block).register_forward_hook(hook(block), with_kwargs=True)
    with torch.no_grad():
        for batch in batches:
            reference(**{k: v for k, v in batch.items() if k != "labels"})
    blocks = set(graph.blocks)
    stats = collect(checkpoint, graph, {"block_cosine": blocks, "block_angle": blocks}, batches)
    for block in blocks:
        cosine = torch.cat(cosines[block])
        assert stats["block_cosine"][block].item() == pytest.approx(cosine.mean().item(), abs=1e-5)
        assert stats["block_angle"][block].item() == pytest.approx((cosine.acos() / np.pi).mean().item(), abs=1e-4)


def test_projection_of_heads_and_channels(tmp_path):
    checkpoint, batches = zoo.save("llama", tmp_path), zoo.batches("llama")
    out, down = "model.layers.1.self_attn.o_proj.weight", "model.layers.1.mlp.down_proj.weight"
    layout = Product((Axis("heads", 2), Axis("queries", 2), Axis("dims", 8)))
    families = {
        "heads": Family("heads", "heads", 2, (Member(out, 1, "in", layout),), 1),
        "queries": Family("queries", "queries", 2, (Member(out, 1, "in", layout),), 1),
        "channels": Family("channels", "channels", 48, (Member(down, 1, "in", Axis("channels", 48)),), 1),
    }
    blocks = zoo.graph("llama").blocks
    graph = Graph({out: (Axis("h", 32), layout), down: (Axis("h", 32), Axis("channels", 48))}, families, blocks, ())
    reference = zoo.stock("llama", tmp_path)
    x = inputs_of(reference, [out, down], batches)
    weight = reference.get_parameter(out).detach().double().view(32, 2, 2, 8)
    projected = torch.einsum("tkqd,okqd->tkqo", x[out].view(-1, 2, 2, 8), weight)
    needs = {"projection": {out, down}}
    stats = collect(checkpoint, graph, needs, batches, data_key="d")
    assert torch.allclose(stats["projection"][down].double(), x[down].abs().mean(0), atol=1e-6)
    expected = projected.sum(2).abs().sum(-1).mean(0)
    assert torch.allclose(stats["projection"][out].double(), expected, atol=1e-5)
    # The same weight seen by another family has other units, also in the cache.
    stats = collect(checkpoint, graph, needs, batches, data_key="d", families=["queries", "channels"])
    expected = projected.sum(1).abs().sum(-1).mean(0)
    assert torch.allclose(stats["projection"][out].double(), expected, atol=1e-5)


def autograd(reference, batches):
    """Mean gradient, and mean squared gradient per sample, of every parameter under its first name."""
    first = {}
    for name, value in reference.state_dict(keep_vars=True).items():
        first.setdefault(id(value), name)
    mean: dict[str, torch.Tensor] = {}
    squares: dict[str, torch.Tensor] = {}
    samples = [{k: v[i : i + 1] for k, v in batch.items()} for batch in batches for i in range(len(batch["input_ids"]))]
    for sample in samples:
        reference.zero_grad()
        task_of(reference).loss(reference(**{k: v for k, v in sample.items() if k != "labels"}), sample).backward()
        for parameter in reference.parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
            name = first[id(parameter)]
            mean[name] = mean.get(name, 0) + gradient / len(samples)
            squares[name] = squares.get(name, 0) + gradient.square() / len(samples)
    return mean, squares


@pytest.mark.parametrize("rounds", [4_000_000_000, 20_000], ids=["one round", "several rounds"])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "falcon", "bert", "bert_encoder", "albert", "t5"])
def test_gradients_are_those_of_autograd(name, rounds, tmp_path):
    checkpoint, batches = zoo.save(name, tmp_path), zoo.batches(name, (2, 3))
    reference, graph = zoo.stock(name, tmp_path), zoo.graph(name)
    mean, squares = autograd(reference, batches)
    stats = collect(checkpoint, graph, {"gradient": set(mean), "fisher": set(mean)}, batches, tape_bytes=rounds)
    alone = collect(checkpoint, graph, {"gradient": set(mean)}, batches, tape_bytes=rounds)
    for key in mean:
        scale = max(1e-6, mean[key].abs().max().item())
        assert (stats["gradient"][key] - mean[key]).abs().max() <= 1e-4 * scale, key
        assert (alone["gradient"][key] - mean[key]).abs().max() <= 1e-4 * scale, key
        scale = max(1e-9, squares[key].abs().max().item())
        assert (stats["fisher"][key] - squares[key]).abs().max() <= 1e-3 * scale, key


def test_statistics_of_a_changed_model(tmp_path):
    """`change` sees its block's statistics; the later ones are those of the model it left."""
    checkpoint, batches, graph = zoo.save("llama", tmp_path), zoo.batches("llama"), zoo.graph("llama")
    keys = {f"{block}.mlp.down_proj.weight" for block in graph.blocks}
    seen = []

    def change(block, module, stats):
        seen.append(stats["input_norm"][f"{block}.mlp.down_proj.weight"])
        module.mlp.down_proj.weight[:, ::2] = 0

    stats = collect(checkpoint, graph, {"input_norm": keys}, batches, change=change, data_key="d")
    reference = zoo.stock("llama", tmp_path)
    for layer in reference.model.layers:
        layer.mlp.down_proj.weight.data[:, ::2] = 0
    for key, x in inputs_of(reference, keys, batches).items():
        assert torch.allclose(stats["input_norm"][key].double(), (x.square().sum(0) / 6).sqrt(), atol=1e-5)
    assert len(seen) == 3 and not (tmp_path / "cache").exists()


def count_runs(monkeypatch):
    runs = []
    original = Stream.run
    monkeypatch.setattr(Stream, "run", lambda self, batches: (runs.append(1), original(self, batches))[1])
    return runs


def test_a_second_time_costs_no_forward(tmp_path, monkeypatch):
    checkpoint, batches, graph = zoo.save("llama", tmp_path), zoo.batches("llama"), zoo.graph("llama")
    keys = {f"{block}.mlp.down_proj.weight" for block in graph.blocks}
    runs = count_runs(monkeypatch)
    first = collect(checkpoint, graph, {"input_norm": keys}, batches, data_key="a")
    again = collect(checkpoint, graph, {"input_norm": keys}, batches, data_key="a")
    assert len(runs) == 1
    assert all(torch.equal(first["input_norm"][key], again["input_norm"][key]) for key in keys)
    collect(checkpoint, graph, {"input_norm": keys}, batches, data_key="b")
    assert len(runs) == 2
    collect(checkpoint, graph, {"input_norm": keys, "input_mean": keys}, batches, data_key="a")
    assert len(runs) == 3


def test_what_an_interrupted_run_finished_is_kept(tmp_path, monkeypatch):
    checkpoint, batches, graph = zoo.save("llama", tmp_path), zoo.batches("llama"), zoo.graph("llama")
    keys = {f"{block}.mlp.down_proj.weight" for block in graph.blocks}
    original = Stream.enter

    def stop(self, station):
        if station == "model.layers.2":
            raise KeyboardInterrupt
        original(self, station)

    monkeypatch.setattr(Stream, "enter", stop)
    with pytest.raises(KeyboardInterrupt):
        collect(checkpoint, graph, {"input_norm": keys}, batches, data_key="a")
    monkeypatch.undo()
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    wanted = []
    gather = collect_module.Gather
    monkeypatch.setattr(collect_module, "Gather", lambda *args: (wanted.append(args[2]), gather(*args))[1])
    stats = collect(checkpoint, graph, {"input_norm": keys}, batches, data_key="a")
    assert wanted == [{"input_norm": {"model.layers.2.mlp.down_proj.weight"}}]
    assert set(stats["input_norm"]) == keys


@pytest.mark.parametrize("key", ["model.layers.0.mlp.no_proj.weight", "model.norm.weight"])
def test_impossible_wishes_are_named(key, tmp_path):
    checkpoint = zoo.save("llama", tmp_path)
    with pytest.raises(ModelError, match=key):
        collect(checkpoint, zoo.graph("llama"), {"input_norm": {key}}, zoo.batches("llama"))
