"""docs/fidelity.md says of every part that cites a paper how close to it it is."""

from pathlib import Path

import pytest

from compress.registry import allocators, criteria, ratios, repairs

ROWS = [
    line for line in (Path(__file__).parent.parent / "docs/fidelity.md").read_text().splitlines() if line[:1] == "|"
]
CITED = [
    (registry.kind, name, registry.get(name).meta.paper)
    for registry in (criteria, allocators, ratios, repairs)
    for name in registry.names()
    if registry.get(name).meta.paper
]


@pytest.mark.parametrize(("kind", "name", "paper"), CITED, ids=lambda value: str(value))
def test_a_part_that_cites_a_paper_says_how_close_it_is(kind, name, paper):
    assert any(f"`{name}`" in row and paper in row for row in ROWS), (
        f"docs/fidelity.md lacks the {kind} {name}, {paper}"
    )
