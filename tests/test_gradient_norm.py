"""GBLM's gradients: the published norm at the published calibration, and the same balance at any other."""

import pytest
import torch
import zoo

from compress.calibrate.collect import collect
from compress.registry import criteria

KEYS = {f"model.layers.{i}.mlp.{name}_proj.weight" for i in range(3) for name in ("up", "down")}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))


def gathered(folder, ids):
    checkpoint = zoo.save("llama", folder)
    needs = {"gradient_norm": KEYS, "input_norm": KEYS}
    return collect(checkpoint, zoo.graph("llama"), needs, [{"input_ids": part} for part in ids.split(2)])


def tokens(samples, length):
    return torch.randint(3, zoo.VOCABULARY, (samples, length), generator=torch.Generator().manual_seed(4))


def test_root_of_the_summed_squares_of_samples(tmp_path):
    samples, length = 5, 12
    ids = tokens(samples, length)
    stats = gathered(tmp_path, ids)
    model = zoo.stock("llama", tmp_path)
    squares = dict.fromkeys(KEYS, 0.0)
    for row in ids:
        model.zero_grad()
        logits = model(row[None]).logits[0]
        torch.nn.functional.cross_entropy(logits[:-1], row[1:]).backward()
        for key in KEYS:
            squares[key] = squares[key] + model.get_parameter(key).grad.double() ** 2
    for key in KEYS:
        published = squares[key].sqrt()  # what the paper's code sums up, over its 128 samples of 2048 tokens
        expected = published * (128 / samples) ** 0.5 * length / 2048
        torch.testing.assert_close(stats["gradient_norm"][key].double(), expected, rtol=1e-3, atol=1e-9)


def score(stats, key):
    """GBLM's two terms of a weight of ones, as one number each."""
    gradient, norm = stats["gradient_norm"][key], stats["input_norm"][key]
    gblm = criteria.get("gblm").target
    one = torch.ones_like(gradient)
    return (gblm(one, norm * 0, gradient).norm() / gblm(one, norm, gradient * 0).norm()).item()


def test_the_balance_does_not_move_with_the_number_of_samples(tmp_path):
    ids = tokens(4, 24)
    once, often = gathered(tmp_path / "a", ids), gathered(tmp_path / "b", ids.repeat(4, 1))
    for key in KEYS:
        torch.testing.assert_close(often["gradient_norm"][key], once["gradient_norm"][key], rtol=1e-4, atol=1e-9)
        assert score(often, key) == pytest.approx(score(once, key), rel=1e-4)


def test_the_balance_hardly_moves_with_the_length_of_samples(tmp_path):
    ids = tokens(8, 48)
    long, short = gathered(tmp_path / "a", ids), gathered(tmp_path / "b", ids.view(32, 12))
    for key in KEYS:
        assert score(short, key) == pytest.approx(score(long, key), rel=0.3)  # eightfold when it is not scaled
