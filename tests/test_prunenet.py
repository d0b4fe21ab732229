"""PruneNet: its reward, its training against the authors' loop written anew, and a policy that is learned once."""

from __future__ import annotations

import json
import weakref

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
from compress.model.model import Model
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe
from compress.registry import criteria
from compress.score.learning import learn
from compress.score.score import score

PRUNENET = criteria.get("prunenet")
GRAPH = toy()
WEIGHTS = tensors(GRAPH)
FAMILIES = GRAPH.of_kind("channels")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))


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
    logits, times, count = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -2.0]), 40_000, 3
    generator = torch.Generator().manual_seed(0)
    alpha, noise = logits.sigmoid(), torch.rand(times, 6, generator=generator)
    chances = torch.sigmoid(noise.log() - (1 - noise).log() + alpha.log() - (1 - alpha).log())
    theirs = torch.multinomial(chances, count, generator=generator)
    ours = policy.drawn(logits.repeat(times), generator).view(times, 6).topk(count).indices
    often = [rows.flatten().bincount(minlength=6) / times for rows in (ours, theirs)]
    torch.testing.assert_close(*often, atol=0.015, rtol=0)
    assert often[0][0] > 2 * often[0][5]


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
        learn(experts.graph, experts.graph.of_kind("channels"), PRUNENET, {}, experts.weights.read)


def test_the_result_is_an_ordinary_checkpoint(tmp_path):
    zoo.save("llama", tmp_path / "in")
    given = "steps:\n  - {prune: channels, by: {prunenet: {episodes: 2}}, remove: 30%}\n"
    report = run(parse_recipe(given), tmp_path / "in", tmp_path / "out", Options(evaluate=False))
    assert any("equal to the masked dense" in note for note in report["notes"])
    written = zoo.stock("llama", tmp_path / "out")
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert written.config.intermediate_size == int(0.7 * zoo.TINY.channels)
