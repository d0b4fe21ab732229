"""The algebra of axes against numpy: what a chain of views, cuts and joins does to positions, layouts must predict."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from math import prod

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from compress.graph.axes import Mismatch, Node, cut, factors, find, leaves, product, reshape, split, terms, total, unify
from compress.graph.layout import Axis, Layout, Product, Sum, families, keep_mask, kept_size, unit_index

quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
SIZES = st.lists(st.sampled_from((1, 2, 3, 4, 6, 8)), min_size=1, max_size=3)


@dataclass
class Pair:
    """Positions of a stored tensor's elements, and the axes that they are said to lie on."""

    positions: np.ndarray
    dims: list[Node]

    def check(self) -> None:
        assert [d.size for d in self.dims] == list(self.positions.shape)


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def step(draw: st.DrawFn, pair: Pair) -> Pair:
    """One random operator, done to the positions by numpy and to the axes by the algebra."""
    array, dims = pair.positions, pair.dims
    kind = draw(st.sampled_from(("view", "merge", "transpose", "swap halves", "split and cat")))
    place = draw(st.integers(0, array.ndim - 1))
    size = array.shape[place]
    if kind == "view":
        minor = draw(st.sampled_from(divisors(size)))
        shape = [*array.shape[:place], size // minor, minor, *array.shape[place + 1 :]]
        return Pair(array.reshape(shape), reshape(dims, shape))
    if kind == "merge" and array.ndim > 1:
        place = min(place, array.ndim - 2)
        shape = [*array.shape[:place], prod(array.shape[place : place + 2]), *array.shape[place + 2 :]]
        return Pair(array.reshape(shape), reshape(dims, shape))
    if kind == "transpose":
        order = draw(st.permutations(range(array.ndim)))
        return Pair(array.transpose(order), [dims[i] for i in order])
    at = draw(st.integers(0, size))
    head, tail = cut(dims[place], at)
    first, second = np.split(array, [at], axis=place)
    if kind == "swap halves":
        first, second, head, tail = second, first, tail, head
    return Pair(np.concatenate([first, second], axis=place), [*dims[:place], total([head, tail]), *dims[place + 1 :]])


def layout(node: Node) -> Layout:
    """A layout whose axes are named by the leaves themselves."""
    node = find(node)
    if node.form == "leaf":
        return Axis(str(id(node)), node.size)
    return (Product if node.form == "product" else Sum)(tuple(layout(part) for part in node.parts))


@given(st.data())
@quick
def test_a_removed_leaf_is_the_same_positions_before_and_after_any_chain(data):
    shape = data.draw(SIZES)
    stored = [Node(n) for n in shape]
    pair = Pair(np.arange(prod(shape)).reshape(shape), list(stored))
    for _ in range(data.draw(st.integers(1, 5))):
        with suppress(Mismatch):  # refused, and nothing that was known before is spoiled
            pair = step(data.draw, pair)
        pair.check()
    everything = [leaf for node in stored for leaf in leaves(node) if leaf.size > 1]
    assume(everything)
    chosen = data.draw(st.sampled_from(everything))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=chosen.size, max_size=chosen.size)))
    kept = {str(id(chosen)): mask}

    def removed(nodes: list[Node], positions: np.ndarray) -> set[int]:
        masks = [keep_mask(layout(node), kept) for node in nodes]
        return set(positions.ravel().tolist()) - set(positions[np.ix_(*masks)].ravel().tolist())

    before = removed(stored, np.arange(prod(shape)).reshape(shape))
    assert removed(pair.dims, pair.positions) == before
    for node in stored:
        sizes = {str(id(chosen)): int(mask.sum())}
        assert kept_size(layout(node), sizes) == keep_mask(layout(node), kept).sum()


@given(st.data())
@quick
def test_adding_two_chains_ties_their_leaves_index_by_index(data):
    """x.view(a) + y.view(b), each cut somewhere: where x loses positions, y loses the same ones."""
    size = data.draw(st.sampled_from((4, 6, 8, 12, 24)))
    left, right = Node(size), Node(size)
    for node in (left, right):
        if data.draw(st.booleans()):
            split(node, data.draw(st.sampled_from(divisors(size))))
        else:
            cut(node, data.draw(st.integers(0, size)))
    try:
        unify(left, right)
    except Mismatch:
        return
    names = {str(id(leaf)): leaf.size for leaf in leaves(left)}
    assert names.keys() == {str(id(leaf)) for leaf in leaves(right)}
    kept = {name: np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))) for name, n in names.items()}
    assert (keep_mask(layout(left), kept) == keep_mask(layout(right), kept)).all()


@given(st.data())
@quick
def test_units_are_the_positions_that_go_with_them(data):
    def nested(depth: int, names: list[str]) -> Layout:
        if depth == 0 or data.draw(st.booleans()):
            # A family occurs at most once in a product, and always with the same size.
            name = data.draw(st.sampled_from(names))
            return Axis(name, {"a": 2, "b": 3, "c": 4}[name])
        if len(names) > 1 and data.draw(st.booleans()):
            return Product((nested(0, names[:1]), nested(depth - 1, names[1:])))
        return Sum((nested(depth - 1, names), nested(depth - 1, names)))

    found = nested(3, data.draw(st.permutations(["a", "b", "c"])))
    for family in set(families(found)):
        units = unit_index(found, family)
        assert units.shape == (found.size,)
        for unit in range({"a": 2, "b": 3, "c": 4}[family]):
            kept = {family: np.arange({"a": 2, "b": 3, "c": 4}[family]) != unit}
            assert (keep_mask(found, kept) == (units != unit)).all()


@pytest.mark.slow
@given(st.lists(st.sampled_from((2, 3, 4, 6)), min_size=1, max_size=4), st.data())
@quick
def test_views_there_and_back_are_the_same_axes(sizes, data):
    nodes = [Node(n) for n in sizes]
    flat = reshape(nodes, [prod(sizes)])
    back = reshape(flat, sizes)
    assert [find(n) for n in back] == [find(n) for n in nodes]
    assert factors(flat[0]) == [find(n) for n in nodes]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.data())
@quick
def test_cuts_in_any_order_give_the_same_terms(sizes, data):
    whole, again = Node(sum(sizes)), Node(sum(sizes))
    borders = np.cumsum(sizes)[:-1].tolist()
    for node, order in ((whole, borders), (again, data.draw(st.permutations(borders)))):
        for at in order:
            cut(node, at)
    assert [t.size for t in terms(whole)] == [t.size for t in terms(again)] == sizes
    unify(whole, again)
    # A single position is never removed, so that it is not tied.
    assert all(a is b for a, b in zip(leaves(whole), leaves(again), strict=True) if a.size > 1)


def test_marks_and_pins_survive_unification_and_reach_the_leaves():
    a, b = Node(12), Node(12)
    a.mark("contracted")
    b.pin("why")
    split(b, 4)
    unify(a, b)
    heads, width = leaves(a)
    assert (heads.size, width.size) == (3, 4)
    after = Node(12)
    after.pin("later")
    unify(after, b)
    assert leaves(after) == leaves(a)
    b.mark("late")
    assert all("late" in leaf.marks for leaf in leaves(a))


def test_structures_that_exclude_each_other_are_a_mismatch():
    with pytest.raises(Mismatch, match="is not"):
        unify(Node(4), Node(6))
    with pytest.raises(Mismatch, match="no multiple"):
        split(Node(6), 4)
    heads = product([Node(3), Node(4)])
    with pytest.raises(Mismatch, match="cuts a product"):
        cut(heads, 6)
    with pytest.raises(Mismatch, match="straddles"):
        reshape([Node(6), Node(2)], [4, 3])
    assert [leaf.size for leaf in leaves(heads)] == [3, 4]  # a refusal leaves no trace


def test_a_product_and_a_sum_unify_by_splitting_every_term():
    """A fused projection that is viewed as heads: (q + k) over heads × width."""
    fused, first, second = Node(24), Node(16), Node(8)
    unify(fused, total([first, second]))
    heads, width = split(fused, 4)
    assert (heads.size, width.size) == (6, 4)
    assert [leaf.size for leaf in leaves(first)] == [4, 4] and [leaf.size for leaf in leaves(second)] == [2, 4]
    assert leaves(first)[1] is leaves(second)[1] is leaves(width)[0]


def test_a_pin_holds_for_parts_found_later():
    """A table of sines and cosines is cut in half, and only the halves meet a stored tensor."""
    table, stored = Node(8), Node(16)
    table.pin("a constant is indexed by it")
    sine, cosine = cut(table, 4)
    rotary, rest = cut(stored, 4)
    unify(rotary, sine)
    assert leaves(stored)[0].pins == cosine.pins == ["a constant is indexed by it"]
    assert not leaves(rest)[0].pins
    late, halves = Node(8), total([Node(4), Node(4)])
    late.mark("averaged")
    unify(late, halves)
    assert all("averaged" in leaf.marks for leaf in leaves(halves))
