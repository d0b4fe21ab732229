"""What a criterion looks at of a family: matrices, not vectors."""

from __future__ import annotations

from collections.abc import Iterator

from compress.graph.families import Family, Graph


def uses(graph: Graph, family: Family) -> Iterator[tuple[str, str, int]]:
    """(tensor, role, dimension) of the matrices that a family runs along.

    The groups of a family of kind `layers` are whole blocks, so all matrices in them; the dimension is then the input.
    """
    if family.kind != "layers":
        for member in family.members:
            if len(graph.layouts[member.tensor]) > 1:
                yield member.tensor, member.role, member.dim
        return
    inputs = {m.tensor: m.dim for f in graph.families.values() for m in f.members if m.role == "in"}
    for tensor, dims in graph.layouts.items():
        owner = graph.block_of(tensor)
        if len(dims) > 1 and owner is not None and graph.blocks[owner] in family.blocks:
            yield tensor, "in" if tensor in inputs else "other", inputs.get(tensor, 0)


def bias_name(weight: str) -> str:
    """Name of the bias beside a weight, whether there is one or not."""
    return weight.removesuffix("weight") + "bias"
