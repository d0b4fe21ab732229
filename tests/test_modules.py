"""compress.prune: modules in memory, against the dense ones with their removed parts zeroed by hand."""

from __future__ import annotations

import copy

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import recipe
from torch import nn
from torch.nn import functional

import compress
from compress.errors import InputError, ModelError, VerifyError
from compress.model.narrow import NarrowAttention

CHANNELS = recipe("{prune: channels, by: magnitude, remove: 30%}")
HEADS = recipe("{prune: heads, by: magnitude, remove: 50%}")
BOTH = recipe("{prune: [heads, channels], by: random, remove: 40%}")
IDS = torch.arange(14).view(2, 7)


def gone(plan, family, size):
    """Indices of the groups that a family of the plan's first step loses."""
    return np.setdiff1d(np.arange(size), plan.steps[0].decision["kept"].get(family, np.arange(size)))


def zeroed(module, columns):
    """The module with these columns of these weights zero: what reads a removed group."""
    made = copy.deepcopy(module).eval()
    with torch.no_grad():
        for weight, places in columns.items():
            made.get_parameter(weight)[:, places] = 0
    return made


def apart(one, other):
    assert one.shape == other.shape
    return ((one - other).abs().max() / other.abs().max()).item()


@given(st.integers(0, 2**20))
@settings(max_examples=2, deadline=None)
def test_a_decoder_without_groups_computes_the_dense_one_with_them_zero(seed):
    dense = nets.Decoder()
    found = compress.prune(dense, IDS, BOTH.model_copy(update={"seed": seed}))
    columns, lost = {}, 0
    for layer in range(2):
        heads = gone(found.plan, f"blocks.{layer}.attention.heads", 2)
        lost += len(heads)
        columns[f"blocks.{layer}.attention.o.weight"] = [c for c in range(32) if c // 16 in heads]  # 2 queries × 8
        columns[f"blocks.{layer}.down.weight"] = gone(found.plan, f"blocks.{layer}.channels", 24)
    small = found.module.eval()
    with torch.no_grad():
        assert apart(small(IDS), zeroed(dense, columns)(IDS)) < 1e-5
        assert apart(small(IDS), dense.eval()(IDS)) > 1e-3
    assert lost == 2 and all(block.attention.heads == 2 and block.attention.shared == 1 for block in small.blocks)
    assert small.blocks[0].up.out_features == len(small.blocks[0].up.bias) < 24
    assert small.head.weight is small.tokens.weight and type(small) is nets.Decoder
    assert found.report["after"]["params"] == sum(p.numel() for p in small.parameters())


def test_the_module_that_is_given_stays_as_it_is():
    dense = nets.Decoder().train()
    dense.norm.requires_grad_(False)
    dense.blocks[1].eval()
    before, state = copy.deepcopy(vars(dense.blocks[0].attention)), copy.deepcopy(dense.state_dict())
    small = compress.prune(dense, IDS, HEADS).module
    assert all(torch.equal(tensor, state[name]) for name, tensor in dense.state_dict().items())
    assert vars(dense.blocks[0].attention)["heads"] == before["heads"] == 4 and dense.training
    assert small.training and not small.blocks[1].training and small.blocks[0].training
    assert not small.norm.weight.requires_grad and small.blocks[0].up.weight.requires_grad
    assert small.blocks[0].attention.heads == 2


def test_sizes_in_objects_follow_and_those_that_only_look_alike_stay():
    dense, x = nets.Counting(), torch.randn(2, 5, 6)
    steps = "{prune: heads, by: magnitude, remove: 50%}", "{prune: layers, by: random, remove: 30%}"
    found = compress.prune(dense, x, recipe(*steps))
    small = found.module
    assert [block.attention.sizes for block in small.blocks] == 2 * [nets.Sizes(heads=2)]
    assert {block.attention.inner for block in small.blocks} == {16} and small.count == 2
    assert {block.attention.longest for block in small.blocks} == {32} and dense.blocks[0].attention.sizes.heads == 4
    assert found.plan.steps[0].config["blocks.1.attention.sizes.heads"] == [4, 2]
    assert {name: tuple(out.shape) for name, out in small(x).items()} == {"states": (2, 5, 16), "pooled": (2, 16)}


def test_torchs_own_attention_loses_heads():
    dense, x = nets.Patches().eval(), torch.randn(3, 6, 12)
    found = compress.prune(
        dense, x, recipe("{prune: [heads, channels], by: random, remove: 40%, skip: [encoder.layers.1.self_attn.*]}")
    )
    small, heads = found.module, gone(found.plan, "encoder.layers.0.self_attn.heads", 4)
    first, second = (layer.self_attn for layer in small.encoder.layers)
    assert (
        type(first) is NarrowAttention
        and isinstance(first, nn.MultiheadAttention)
        and type(second) is nn.MultiheadAttention
    )
    assert first.num_heads == 4 - len(heads) < 4 and first.embed_dim == 16
    columns = {"encoder.layers.0.self_attn.out_proj.weight": [c for c in range(16) if c // 4 in heads]}
    for layer in range(2):
        name = f"encoder.layers.{layer}"
        columns[f"{name}.linear2.weight"] = gone(found.plan, f"{name}.channels", 24)
    with torch.no_grad():
        assert apart(small(x), zeroed(dense, columns)(x)) < 1e-5
    exported = torch.export.export(small, (x,)).module()
    assert apart(exported(x), small(x)) < 1e-6


@pytest.mark.parametrize("masks", ["none", "causal", "padding", "both", "weights", "alone"])
def test_a_narrow_attention_that_lost_nothing_is_the_stock_one(masks):
    from compress.model.narrow import narrow

    stock = nn.MultiheadAttention(12, 3, batch_first=masks != "causal").eval()
    q, k = torch.randn(2, 4, 12), torch.randn(2, 4, 12)
    told = {"need_weights": masks == "weights"}
    if masks in ("causal", "both"):
        told["attn_mask"] = torch.ones(4, 4).triu(1).bool()
    if masks in ("padding", "both"):
        told["key_padding_mask"] = torch.tensor([[False, False, True, True], [False] * 4])
    if masks == "alone":
        q, k = q[0], k[0]
    if masks == "causal":
        q, k = q.transpose(0, 1), k.transpose(0, 1)
    wanted = stock(q, k, k, **told)
    other = copy.deepcopy(stock)
    narrow(other)
    found = copy.deepcopy(other)(q, k, k, **told)
    assert apart(found[0], wanted[0]) < 1e-5
    assert (wanted[1] is None) == (found[1] is None) and (wanted[1] is None or apart(found[1], wanted[1]) < 1e-5)


def test_numbers_written_into_the_code_are_said_with_their_module():
    with pytest.raises(ModelError, match=r"blocks\.0\.attention \(WrittenIn\): does not run .*\[2, 7, 4, 8\].*`skip`"):
        compress.prune(nets.Decoder(nets.WrittenIn, layers=1), IDS, HEADS)


def test_a_cut_that_would_run_on_other_axes_is_refused():
    class Whatever(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.o = nn.Linear(5, 16), nn.Linear(32, 16)
            self.q, self.k, self.v = (nn.Linear(16, 32) for _ in range(3))

        def forward(self, x):
            x = self.e(x)
            q, k, v = (f(x).view(*x.shape[:2], 4, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
            y = functional.scaled_dot_product_attention(q, k, v)
            return self.o(y.transpose(1, 2).reshape(*x.shape[:2], -1))

    with pytest.raises(ModelError, match=r"o\.weight would be laid out as .*\(4, 4\).*not .*\(2, 8\)"):
        compress.prune(Whatever(), torch.randn(2, 3, 5), HEADS)


def test_statistics_are_those_of_the_data_that_is_given():
    dense, data = nets.Mlp(), [torch.randn(4, 8) for _ in range(3)]
    steps = recipe("{prune: channels, by: activation, remove: 50%, skip: [third.*]}", calibrate="{samples: 10}")
    found = compress.prune(dense, data[0], steps, data=iter(data))
    with torch.no_grad():
        inner = dense.first(torch.cat(data)[:10]).relu()
    order = inner.square().mean(0).argsort(descending=True)
    assert found.plan.steps[0].decision["kept"]["channels"] == sorted(order[:12].tolist())
    with pytest.raises(InputError, match="pass `data=`"):
        compress.prune(dense, data[0], steps)


def test_gradients_are_those_of_the_loss_that_is_given():
    dense = nets.Mlp()
    data = [(torch.randn(4, 8), {"classes": torch.randint(5, (4,)), "weight": torch.rand(4)}) for _ in range(2)]

    def loss(output, target):
        return (functional.cross_entropy(output, target["classes"], reduction="none") * target["weight"]).mean()

    steps = recipe("{prune: channels, by: taylor, remove: 50%, skip: [third.*]}")
    found = compress.prune(dense, data[0][0], steps, data=data, loss=loss)
    other = copy.deepcopy(dense)
    sum(loss(other(x), target) * len(x) for x, target in data).backward()
    first, second = ((p.detach() * p.grad).abs() for p in (other.first.weight, other.second.weight))
    order = (first.sum(1) + second.sum(0)).argsort(descending=True)
    assert found.plan.steps[0].decision["kept"] == {"channels": sorted(order[:12].tolist())}
    with pytest.raises(InputError, match="pass `loss=`"):
        compress.prune(dense, data[0][0], steps, data=data)
    with pytest.raises(InputError, match=r"pairs, \(inputs, target\)"):
        compress.prune(dense, data[0][0], steps, data=[data[0][0]], loss=loss)


def test_arguments_of_any_form_and_what_is_not_stored(tmp_path):
    torch.manual_seed(1)
    dense = nets.Constants()
    inputs = {"x": torch.randn(3, 6), "extra": {"bias": [torch.randn(3)]}, "labels": torch.randn(3, 3), "double": True}
    small = compress.prune(dense, inputs, CHANNELS)
    assert small.module.up.out_features == 14
    small.save(tmp_path / "out")
    again = compress.load(tmp_path / "out", build=nets.Constants)
    for one, other in zip(again(**inputs), small.module.eval()(**inputs), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match="does not take them: missing a required"):
        compress.prune(dense, {"x": inputs["x"]}, CHANNELS)
    with pytest.raises(InputError, match="batch 0 has neither the form of example_inputs nor"):
        compress.prune(dense, inputs, CHANNELS, data=[inputs["x"]])
    with pytest.raises(InputError, match="no tensor with samples"):
        compress.prune(dense, {**inputs, "x": 1, "labels": 2, "extra": {}}, CHANNELS)


def test_constants_that_are_equal_everywhere_are_cut_and_others_pin(tmp_path):
    dense, x = nets.Shifted(torch.arange(16.0)), torch.randn(2, 8)
    found = compress.prune(dense, x, CHANNELS)
    free = {family.name: family.pinned for family in compress.inspect(dense, x).families if family.kind == "channels"}
    assert list(free.values()) == [None, "the constant scale is indexed by it"]
    assert found.module.shift.tolist() == [0.5] * len(found.module.first.weight) and len(found.module.scale) == 16
    found.save(tmp_path / "out")
    again = compress.load(tmp_path / "out", build=lambda: nets.Shifted(torch.arange(16.0)))
    masked = zeroed(dense, {"second.weight": gone(found.plan, next(iter(free)), 24)})
    with torch.no_grad():
        assert apart(again(x), masked(x)) < 1e-6 < apart(dense(x), masked(x))


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_a_forward_that_cannot_be_verified_is_refused(monkeypatch):
    class Noisy(nets.Mlp):
        def forward(self, x):
            return super().forward(x) + torch.rand(5)

    with pytest.raises(VerifyError, match="another output each time"):
        compress.prune(Noisy(), torch.randn(2, 8), CHANNELS)
    with pytest.raises(InputError, match="a ScriptModule has no forward"):
        compress.prune(torch.jit.script(nn.Linear(8, 8)), torch.randn(2, 8), CHANNELS)
    with pytest.raises(InputError, match=r"first\.weight is on the meta device"):
        compress.prune(nets.Mlp().to("meta"), torch.randn(2, 8), CHANNELS)
    with pytest.raises(InputError, match=r"DataParallel: wraps a module; give that, its `\.module`"):
        compress.prune(nn.DataParallel(nets.Mlp()), torch.randn(2, 8), CHANNELS)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="runs in one process, and this is one of 2"):
        compress.prune(nets.Mlp(), torch.randn(2, 8), CHANNELS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtypes_stay(dtype):
    dense = nets.Mlp().to(dtype)
    small = compress.prune(dense, torch.randn(4, 8, dtype=dtype), CHANNELS).module
    assert {p.dtype for p in small.parameters()} == {dtype}


def test_a_pruned_initialisation_trains_and_rounds_share_the_budget():
    x = torch.randn(64, 8)
    y = x[:, :5].argmax(1)
    sizes, losses = [], []

    def train(module):
        step = torch.optim.Adam(module.parameters(), 0.02)
        for _ in range(20):
            step.zero_grad()
            functional.cross_entropy(module(x), y).backward()
            step.step()
        sizes.append(module.first.out_features)
        losses.append(functional.cross_entropy(module(x), y).item())

    dense = nets.Mlp(wide=64)
    half = recipe("{prune: channels, by: magnitude, until: 50%}")
    found = compress.prune(dense, x[:2], half, train=train, rounds=3)
    assert sizes[0] > sizes[1] > sizes[2] and losses[2] < losses[0] < functional.cross_entropy(dense(x), y)
    params = sum(p.numel() for p in dense.parameters())
    left = [step.after["params"] / params for step in found.plan.steps]
    assert left == pytest.approx([0.5 ** (1 / 3), 0.5 ** (2 / 3), 0.5], abs=0.02) and left[2] <= 0.5
    assert len(found.changes) == 3 and found.report["before"]["params"] == params
    with pytest.raises(InputError, match="rounds: PruneWeights has no budget that is spent in rounds"):
        compress.prune(dense, x[:2], recipe("{prune: weights, by: magnitude, remove: 50%}"), rounds=2)


def test_a_plan_is_done_again_on_the_module_that_it_was_made_for():
    dense, x = nets.Mlp(), torch.randn(2, 8)
    found = compress.prune(dense, x, [{"prune": "channels", "by": "random", "remove": "30%"}], set=["seed=3"])
    again = compress.prune(dense, x, found.plan)
    assert all(torch.equal(a, b) for a, b in zip(found.module.parameters(), again.module.parameters(), strict=True))
    with pytest.raises(InputError, match="was made for other weights of a Mlp"):
        compress.prune(nets.Mlp(), x, found.plan)


def test_inspect_names_what_can_go():
    found = compress.inspect(nets.Decoder(), IDS)
    free = {family.name: family.count for family in found.families if family.pinned is None}
    assert free["blocks.1.attention.heads"] == 2 and free["blocks.0.channels"] == 24 and found.architecture == "Decoder"


def test_steps_that_a_module_cannot_have_are_said():
    with pytest.raises(InputError, match="tokenizer"):
        compress.prune(nets.Decoder(), IDS, recipe("{prune: vocab, remove: unused}"))
