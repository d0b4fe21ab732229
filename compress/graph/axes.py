"""Axes as a union-find with refinement: type inference for tensor dimensions.

A `Node` is a dimension whose inner structure is not yet known (a leaf), a product of nodes (`heads × head_dim`) or a
sum of nodes (`q + k + v`). Unifying two nodes says that index i of one is index i of the other; where one side has more
structure than the other, the other is refined to match. Leaves that survive are the axes of the model.
"""

from __future__ import annotations

from math import prod


class Mismatch(Exception):
    """Two dimensions cannot be aligned by products and sums."""


class Node:
    """One dimension, or a part of one. `marks` say how operators used it, `pins` why it must stay whole."""

    __slots__ = ("form", "marks", "parent", "parts", "pins", "size")

    def __init__(self, size: int, form: str = "leaf", parts: tuple[Node, ...] = ()) -> None:
        self.size = size
        self.form = form
        self.parts = parts
        self.parent: Node | None = None
        self.marks: set[str] = set()
        self.pins: list[str] = []

    def mark(self, *marks: str) -> None:
        """Note how operators use every leaf of it."""
        for leaf in leaves(self):
            leaf.marks.update(marks)

    def pin(self, reason: str) -> None:
        """Every leaf of it must stay whole."""
        for leaf in leaves(self):
            if reason not in leaf.pins:
                leaf.pins.append(reason)


def find(node: Node) -> Node:
    """The node that stands for `node`'s class."""
    root = node
    while root.parent is not None:
        root = root.parent
    while node.parent is not None:
        node.parent, node = root, node.parent
    return root


def leaves(node: Node) -> list[Node]:
    """The leaves below a node, in order."""
    node = find(node)
    return [node] if node.form == "leaf" else [leaf for part in node.parts for leaf in leaves(part)]


def product(nodes: list[Node]) -> Node:
    """Nodes nested in each other, the slowest-moving first; factors of size 1 vanish."""
    nodes = [n for n in nodes if n.size != 1]
    if len(nodes) == 1:
        return nodes[0]
    return Node(prod(n.size for n in nodes), "product", tuple(nodes)) if nodes else Node(1)


def total(nodes: list[Node]) -> Node:
    """Nodes one behind the other; empty ones vanish."""
    nodes = [n for n in nodes if n.size != 0]
    if len(nodes) == 1:
        return nodes[0]
    return Node(sum(n.size for n in nodes), "sum", tuple(nodes)) if nodes else Node(0)


def factors(node: Node) -> list[Node]:
    """The factors of a product, flattened; a leaf or a sum is its own only factor; size 1 has none."""
    node = find(node)
    if node.size == 1:
        return []
    return [f for part in node.parts for f in factors(part)] if node.form == "product" else [node]


def terms(node: Node) -> list[Node]:
    """The terms of a sum, flattened; a leaf or a product is its own only term."""
    node = find(node)
    return [t for part in node.parts for t in terms(part)] if node.form == "sum" else [node]


def split(node: Node, minor: int) -> tuple[Node, Node]:
    """`node` as (major, minor) with `minor` positions in the fast-moving part; refines it.

    Raises Mismatch where a boundary falls inside a part.
    """
    node = find(node)
    if minor == node.size:
        return Node(1), node
    if minor == 1:
        return node, Node(1)
    if node.size % minor:
        raise Mismatch(f"{node.size} is no multiple of {minor}")
    if node.form == "leaf":
        return _refine(node, "product", node.size // minor, minor)
    if node.form == "sum":
        halves = [split(term, minor) for term in terms(node)]
        for _, low in halves[1:]:
            unify(halves[0][1], low)
        major, low = total([high for high, _ in halves]), halves[0][1]
        node.form, node.parts = "product", (major, low)
        return major, low
    *rest, last = factors(node)
    if last.size > minor:
        high, low = split(last, minor)
        return product([*rest, high]), low
    if minor % last.size:
        raise Mismatch(f"{minor} cuts a factor of {last.size}")
    high, low = split(product(rest), minor // last.size)
    return high, product([low, last])


def _refine(leaf: Node, form: str, first: int, second: int) -> tuple[Node, Node]:
    """A leaf turns out to have two parts. What is known of it holds for them, wherever they go."""
    parts = Node(first), Node(second)
    for part in parts:
        part.marks |= leaf.marks
        part.pins += leaf.pins
    leaf.form, leaf.parts = form, parts
    return parts


def cut(node: Node, at: int) -> tuple[Node, Node]:
    """`node` as (first `at` positions, the rest); refines it. Raises Mismatch where `at` falls inside a part."""
    node = find(node)
    if at == 0:
        return Node(0), node
    if at == node.size:
        return node, Node(0)
    if node.form == "leaf":
        return _refine(node, "sum", at, node.size - at)
    if node.form == "sum":
        heads: list[Node] = []
        rest = terms(node)
        while rest and at >= rest[0].size:
            heads.append(rest.pop(0))
            at -= heads[-1].size
        if at:
            head, tail = cut(rest.pop(0), at)
            heads.append(head)
            rest.insert(0, tail)
        return total(heads), total(rest)
    major, *minor = factors(node)
    inner = prod(f.size for f in minor)
    if at % inner:
        raise Mismatch(f"{at} cuts a product of {inner}")
    head, tail = cut(major, at // inner)
    return product([head, *minor]), product([tail, *minor])


def unify(a: Node, b: Node) -> None:
    """Index i of `a` is index i of `b` from now on. Raises Mismatch where their structures exclude each other."""
    a, b = find(a), find(b)
    if a is b:
        return
    if a.size != b.size:
        raise Mismatch(f"{a.size} is not {b.size}")
    if a.size == 1:
        # A single group is never removed, so that nothing follows from it; only its marks are worth keeping.
        return
    if a.form != "leaf" and b.form == "leaf":
        a, b = b, a
    if a.form != "leaf":
        if a.form == b.form == "sum":
            _align(terms(a), terms(b), terms, cut)
        else:
            _align(factors(a), factors(b), factors, lambda node, size: split(node, node.size // size))
        a, b = find(a), find(b)
        if a is b:
            return
    a.parent = b
    b.mark(*a.marks)
    for reason in a.pins:
        b.pin(reason)


def _align(left: list[Node], right: list[Node], flatten, divide) -> None:
    """Unify two part lists of equal total, dividing parts where the boundaries differ."""
    while left and right:
        # A part may have been refined by an earlier unification: look again.
        left[:1], right[:1] = flatten(left[0]), flatten(right[0])
        x, y = left.pop(0), right.pop(0)
        if x.size > y.size:
            x, rest = _divide(x, y.size, divide)
            left.insert(0, rest)
        elif y.size > x.size:
            y, rest = _divide(y, x.size, divide)
            right.insert(0, rest)
        unify(x, y)


def _divide(node: Node, size: int, divide) -> tuple[Node, Node]:
    first, rest = divide(node, size)
    if first.size != size:
        raise Mismatch(f"{node.size} does not divide into {size} and a rest")
    return first, rest


def reshape(dims: list[Node], sizes: list[int]) -> list[Node]:
    """The dimensions of a row-major view of `dims` as `sizes`; refines. Raises Mismatch where factors straddle."""
    pool = [f for dim in dims for f in factors(dim)]
    result = []
    for size in sizes:
        taken: list[Node] = []
        need = size
        while need > 1:
            if not pool:
                raise Mismatch(f"nothing left to view as {size}")
            pool[:1] = factors(pool[0])
            first = pool.pop(0)
            if need % first.size == 0:
                taken.append(first)
                need //= first.size
            elif first.size % need == 0:
                high, low = split(first, first.size // need)
                taken.append(high)
                pool[:0] = [low]
                need = 1
            else:
                raise Mismatch(f"{first.size} straddles the boundary of {size}")
        result.append(product(taken))
    return result
