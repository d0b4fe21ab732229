"""PruneNet: its reward, its training against the authors' loop written anew, and a policy that is learned once."""

from __future__ import annotations

import json
import weakref
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import zoo
from scipy.stats import ks_2samp
from synthetic import CHANNELS, HIDDEN, tensors, toy
from torch import nn

from compress.criteria.prunenet import policy
from compress.criteria.prunenet.spectrum import PERFECT, ks_distance, reward, singular_values
from compress.errors import InputError
from compress.execution.baseline import Original
from compress.execution.context import Context
from compress.model.model import Model
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe
from compress.registry import criteria
from compress.registry.scope import Scope
from compress.score.learning import Learner, learn
from compress.score.score import score
from compress.steps.units.decide import decide, families_of, wants
from compress.steps.units.in_sequence import in_sequence

PRUNENET = criteria.get("prunenet")
GRAPH = toy()
WEIGHTS = tensors(GRAPH)
FAMILIES = GRAPH.of_kind("channels")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def runs(monkeypatch) -> list[policy.Training]:
    """Every training that took place."""
    found: list[policy.Training] = []
    ran = policy.Training.run
    monkeypatch.setattr(policy.Training, "run", lambda self: (found.append(self), ran(self))[1])
    return found


def matrices(count: int = 3, rows: int = 14, columns: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(rows, columns, generator=generator) * (1 + i) for i in range(count)]


@pytest.mark.parametrize(("rows", "columns"), [(40, 24), (24, 24), (10, 24)])
def test_the_reward_is_that_of_scipy(rows, columns):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows + 8, columns, generator=generator)
    spectra = [torch.linalg.svdvals(part).numpy() for part in (weight, weight[:rows])]
    torch.testing.assert_close(singular_values(weight[:rows]).flip(0).float(), torch.from_numpy(spectra[1]))
    found = ks_distance(singular_values(weight), singular_values(weight[:rows]))
    assert found == pytest.approx(ks_2samp(*spectra).statistic)
    assert reward(found) == pytest.approx(1 / ks_2samp(*spectra).statistic)
    assert ks_distance(singular_values(weight), singular_values(weight)) == 0 and reward(0) == PERFECT


class AuthorsPredictor(nn.Module):
    """The published policy, layer by layer."""

    def __init__(self, rows, columns, generator):
        super().__init__()
        self.proj = nn.Linear(columns, rows)
        self.row_sparsities = nn.Parameter(torch.empty(rows, 1))
        with torch.no_grad():
            for part in (self.proj.weight, self.proj.bias):
                part.copy_((torch.rand(part.shape, generator=generator) * 2 - 1) / columns**0.5)
            self.row_sparsities.copy_(torch.rand(rows, 1, generator=generator))

    def forward(self, weight, noise):
        alpha = torch.sigmoid(self.proj(weight) @ self.row_sparsities)[:, 0]
        return torch.sigmoid(noise.log() - (1 - noise).log() + alpha.log() - (1 - alpha).log())


def test_training_is_the_published_loop():
    """REINFORCE as the authors' code has it, in plain torch with its two layers, SciPy and a decomposition."""
    weights, share, episodes = matrices(), 0.4, 3
    rows, columns = weights[0].shape
    found = policy.Training([lambda w=w: w for w in weights], share, episodes, 1e-2, seed=3).run()
    generator = torch.Generator().manual_seed(3)
    model = AuthorsPredictor(rows, columns, generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    best, state = 0, {}
    for _ in range(episodes):
        actions, rewards = [], []
        for weight in weights:
            chances = model(weight, torch.rand(rows, generator=generator)).detach()
            actions.append(torch.multinomial(chances, int((1 - share) * rows), generator=generator))
            pair = (torch.linalg.svdvals(part).numpy() for part in (weight, weight[actions[-1]]))
            rewards.append(1 / ks_2samp(*pair).statistic)
        for i, weight in enumerate(weights):
            chances = model(weight, torch.rand(rows, generator=generator))
            loss = -torch.gather(chances.log(), 0, actions[i]).sum() * rewards[i] * 0.99**i
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if sum(rewards) > best:
            best, state = sum(rewards), {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    with torch.no_grad():
        expected = (model.proj(weights[1]) @ model.row_sparsities)[:, 0]
    torch.testing.assert_close(weights[1] @ found["direction"] + found["offset"], expected, rtol=1e-3, atol=1e-4)
    untrained = policy.Training([lambda w=w: w for w in weights], share, 1, 1e-12, seed=3).run()
    assert not torch.allclose(found["direction"], untrained["direction"], rtol=1e-2)


def test_the_gradient_is_that_of_the_published_loss():
    (weight,) = matrices(1)
    noise, kept = torch.rand(14, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 3, 4, 9])
    own, theirs = (make(14, 6, torch.Generator().manual_seed(2)) for make in (policy.Policy, AuthorsPredictor))
    policy.loss(own.logits(weight), noise, kept, 2.5).backward()
    (-theirs(weight, noise).log()[kept].sum() * 2.5).backward()
    gradients = [part.grad for part in own.parameters()]
    expected = [theirs.proj.weight.grad, theirs.proj.bias.grad, theirs.row_sparsities.grad[:, 0]]
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)


def test_a_draw_is_that_of_the_published_code():
    """How often each row is among those drawn, in the authors' way and in ours."""
    logits, times, count = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -2.0]), 2000, 3
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.zeros(6), torch.zeros(6)
    alpha, noise = logits.sigmoid(), torch.rand(times, 6, generator=generator)
    chances = torch.sigmoid(noise.log() - (1 - noise).log() + alpha.log() - (1 - alpha).log())
    for row in torch.multinomial(chances, count, generator=generator):
        theirs[row] += 1
        ours[policy.drawn(logits, generator).topk(count).indices] += 1
    torch.testing.assert_close(ours / times, theirs / times, atol=0.04, rtol=0)
    assert theirs[0] > 2 * theirs[5]


def test_rows_are_ranked_by_the_first_matrix_and_one_is_held_at_a_time():
    alive: set[int] = set()
    most = 0

    def read(name):
        nonlocal most
        value = WEIGHTS[name].clone()
        alive.add(id(value))
        weakref.finalize(value, alive.discard, id(value))
        most = max(most, len(alive))
        return value

    learned = learn(GRAPH, FAMILIES, PRUNENET, {}, read, arguments={"episodes": 2})
    assert {name: tuple(value.shape) for name, value in learned.items()} == {"direction": (HIDDEN,), "offset": ()}
    found = score(GRAPH, FAMILIES, PRUNENET, {}, read, learned=learned)
    assert most <= 2
    for i in range(2):
        expected = WEIGHTS[f"layers.{i}.gate.weight"].double() @ learned["direction"].double() + learned["offset"]
        np.testing.assert_allclose(found[f"channels.{i}"], expected.numpy(), rtol=1e-6)
    again = score(GRAPH, FAMILIES, PRUNENET, {}, read, arguments={"episodes": 2})
    np.testing.assert_array_equal(again["channels.1"], found["channels.1"])
    other = score(GRAPH, FAMILIES, PRUNENET, {}, read, arguments={"episodes": 2}, seed=1)
    assert (other["channels.1"] != found["channels.1"]).any()


def recipe(remove="30%", seed=0, more="", **arguments):
    given = json.dumps({"episodes": 2, **arguments})
    return parse_recipe(
        f"seed: {seed}\ncalibrate: {{data: random, samples: 4, length: 12}}\n"
        f"steps:\n  - {{prune: channels, by: {{prunenet: {given}}}, remove: {remove}{more}}}\n"
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return Model.of(zoo.save("llama", tmp_path_factory.mktemp("llama")))


def kept(source, asked):
    context = Context(source, source, Original(source.graph), asked, "cpu")
    families = families_of(source.graph, asked.steps[0])
    if asked.steps[0].propagate == "pruned":
        return in_sequence(context, asked.steps[0], families)[0].kept
    return decide(context, asked.steps[0], families, {}).kept


def test_one_policy_is_good_for_every_share(llama, runs):
    masks = [kept(llama, recipe(remove)) for remove in ("20%", "30%", "40%", "50%")]
    assert len(runs) == 1
    for more, fewer in pairwise(masks):
        assert all((mask >= fewer[name]).all() and mask.sum() > fewer[name].sum() for name, mask in more.items())
    behind = kept(llama, recipe(more=", propagate: pruned, repair: bias"))
    assert len(runs) == 1 and all((behind[name] == mask).all() for name, mask in masks[1].items())
    draws = [kept(llama, recipe(draw=seed)) for seed in (0, 0, 1)]
    first = [mask["model.layers.0.mlp.channels"].tolist() for mask in draws]
    assert len(runs) == 1 and first[0] == first[1] != first[2] and sum(first[0]) == sum(first[2])
    kept(llama, recipe(train_at="30%"))
    kept(llama, recipe(seed=1))
    kept(llama, recipe(more=", skip_layers: [0]"))
    assert len(runs) == 4


def test_a_damaged_file_of_the_cache_is_learned_anew(llama, runs, tmp_path, capsys):
    first = kept(llama, recipe())
    (file,) = (tmp_path / "cache" / "learned").iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    second = kept(llama, recipe())
    assert len(runs) == 2 and "checksum" in capsys.readouterr().err
    assert all((mask == second[name]).all() for name, mask in first.items())


def test_a_named_file_is_written_and_then_read(llama, runs, tmp_path, monkeypatch):
    file = tmp_path / "policy.safetensors"
    first = kept(llama, recipe(policy=str(file), train_at="35%"))
    assert file.stat().st_size < 2000
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "elsewhere"))
    second = kept(llama, recipe("40%", policy=str(file), seed=7))
    assert len(runs) == 1 and all((mask >= second[name]).all() for name, mask in first.items())
    with pytest.raises(InputError, match=r"policy.safetensors: learned with train_at 35%, and the recipe says 30%"):
        kept(llama, recipe(policy=str(file), train_at="30%"))
    narrow = Model.of(zoo.save("llama", tmp_path / "narrow", hidden_size=16))
    with pytest.raises(InputError, match=r"policy.safetensors: a policy of 16 columns .* the file's is \[\d+\]; name"):
        kept(narrow, recipe(policy=str(file)))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: b"nothing of the kind", "policy: (not|truncated)"),
        (lambda data: data[:-3], "policy: "),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "policy: damaged, its checksum is another; name a file"),
        (lambda data: data.replace(b"prunenet", b"prunenot"), "criterion prunenot learned it, not prunenet"),
        (lambda data: data.replace(b"compress_learned", b"compress_unheard"), "not what a criterion has learned"),
    ],
)
def test_a_bad_policy_file_is_refused(llama, tmp_path, spoil, said):
    file = tmp_path / "policy"
    kept(llama, recipe(policy=str(file)))
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(InputError, match=said):
        kept(llama, recipe(policy=str(file)))
    with pytest.raises(InputError, match=r"there: No such file or directory; name another file"):
        kept(llama, recipe(policy=str(tmp_path / "no" / "policy")))


def test_what_is_learned_from_statistics_is_learned_anew_for_other_data(llama, monkeypatch):
    learned_on: list[torch.Tensor] = []

    @dataclass(frozen=True, kw_only=True)
    class ByNorm(Learner):
        """The norm of inputs, over that of all layers."""

        kept: Path | None = None
        file: ClassVar[str] = "kept"

        def learn(self, families):
            learned_on.append(sum(view.stats["input_norm"].sum() for family in families for view in family.views()))
            return {"total": learned_on[-1].clone()}

        def check(self, families, learned):
            assert learned["total"].dim() == 0

        def score(self, family, learned):
            (view,) = family.views()
            return view.stats["input_norm"] / learned["total"]

    monkeypatch.setattr(criteria, "_entries", dict(criteria._entries))
    criteria.add("by_norm", scope=Scope.LEARNED, on="in", needs=("input_norm",))(ByNorm)

    def asked(samples, more=""):
        return parse_recipe(
            f"calibrate: {{data: random, samples: {samples}, length: 12}}\n"
            f"steps:\n  - {{prune: channels, by: by_norm, remove: 25%{more}}}\n"
        )

    for samples in (4, 4, 3):
        recipe = asked(samples)
        context = Context(llama, llama, Original(llama.graph), recipe, "cpu")
        families = families_of(llama.graph, recipe.steps[0])
        stats = context.collect(wants(llama, recipe.steps[0], families, decide=True))
        decide(context, recipe.steps[0], families, stats)
    assert len(learned_on) == 2 and learned_on[0] != learned_on[1]
    with pytest.raises(InputError, match="gathers block by block, and by_norm learns of all; take `dense`"):
        kept(llama, asked(4, ", propagate: pruned"))


def test_what_has_no_rows_to_score_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"'prunenet' ranks channels, it cannot rank heads"):
        parse_recipe("steps:\n  - {prune: [heads, channels], by: prunenet, remove: 20%}\n")
    with pytest.raises(InputError, match=r"prunenet: train_at: a share lies between"):
        criteria.get("prunenet").bind({"train_at": 1.0})
    uneven = dict(WEIGHTS)
    uneven["layers.1.gate.weight"] = torch.randn(CHANNELS, HIDDEN + 1)
    with pytest.raises(InputError, match=r"channels.0 reads a matrix \[10, 12\], channels.1 one \[10, 13\]; `skip`"):
        learn(GRAPH, FAMILIES, PRUNENET, {}, uneven.__getitem__)
    experts = Model.of(zoo.save("mixtral", tmp_path / "in"))
    with pytest.raises(InputError, match=r"has one for each expert"):
        kept(experts, recipe())


def test_the_result_is_an_ordinary_checkpoint(llama, tmp_path: Path):
    report = run(recipe(), llama.checkpoint.folder, tmp_path / "out", Options(evaluate=False))
    assert any("equal to the masked dense" in note for note in report["notes"])
    written = zoo.stock("llama", tmp_path / "out")
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert written.config.intermediate_size == int(0.7 * llama.config.intermediate_size)
