"""What operators make on the meta device: remembered, it is what torch makes of the same, in fresh tensors."""

import pytest
import torch
from torch import Tensor

from compress.graph import shapes
from compress.graph.shapes import outcome

aten = torch.ops.aten
META = {"device": torch.device("meta")}
X = torch.empty(3, 4, **META)
COUNTS = torch.empty(3, 4, dtype=torch.int64, **META)


@pytest.fixture(autouse=True)
def nothing(monkeypatch):
    """Nothing is remembered yet."""
    monkeypatch.setattr(shapes, "_remembered", {})


def described(result):
    several = [result] if isinstance(result, Tensor) else result
    return [x if x is None else (x.shape, x.stride(), x.dtype, x.device.type) for x in several]


@pytest.mark.parametrize(
    ("func", "args", "kwargs"),
    [
        (aten.mul.Tensor, (X, X[0]), {}),
        (aten.mul.Tensor, (X.t(), X.t()), {}),
        (aten.mul.Tensor, (X, torch.nn.Parameter(X)), {}),
        (aten.sum.dim_IntList, (X, [1], True), {}),
        (aten.cat.default, ([X, X], 1), {}),
        (aten.topk.default, (X, 2), {}),
        (aten.native_layer_norm.default, (X, [4], X[0], None, 1e-5), {}),
        (aten.embedding.default, (X, COUNTS), {}),
        (aten._to_copy.default, (X,), {"dtype": torch.float16}),
        (aten.full.default, ([2, 5], 1.0), META),
    ],
    ids=lambda value: str(value) if callable(value) else "",
)
def test_the_second_call_gives_what_torch_gives(func, args, kwargs):
    first, again = outcome(func, args, kwargs), outcome(func, args, kwargs)
    assert described(first) == described(again) == described(func(*args, **kwargs))
    assert [key[0] for key in shapes._remembered] == [func]
    assert again is not first


@pytest.mark.parametrize("others", [(COUNTS, X), (1, 1.0, True), ([0], [0, 1], [1])], ids=["dtypes", "numbers", "dims"])
def test_what_differs_is_told_apart(others):
    func = aten.sum.dim_IntList if isinstance(others[0], list) else aten.add.Tensor
    for _ in range(2):
        for other in others:
            assert described(outcome(func, (COUNTS, other), {})) == described(func(COUNTS, other))
    assert len(shapes._remembered) == len(others)


def test_views_changes_and_values_are_not_remembered():
    view = outcome(aten.view.default, (X, [12]), {})
    assert view.untyped_storage()._cdata == X.untyped_storage()._cdata
    assert outcome(aten.add_.Tensor, (X, 1), {}) is X
    for number in (1.0, 2.0):
        assert outcome(aten.add.Tensor, (torch.tensor([number]), 1), {}).item() == number + 1
    assert outcome(aten.mul.Tensor, (X.to(torch.complex64), 1j), {}).dtype == torch.complex64
    assert not shapes._remembered


def test_what_torch_refuses_is_refused_again():
    for _ in range(2):
        with pytest.raises(RuntimeError, match="same reduction dim"):
            outcome(aten.mm.default, (X, X), {})


def test_once_there_are_too_many_all_are_forgotten(monkeypatch):
    monkeypatch.setattr(shapes, "MOST", 3)
    for size in range(1, 9):
        given = torch.empty(size, **META)
        assert outcome(aten.neg.default, (given,), {}).shape == (size,)
        assert len(shapes._remembered) <= 3
