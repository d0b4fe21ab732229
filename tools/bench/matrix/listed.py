"""Models that a library builds by name, as a committed list has them: `timm:NAME` or `torchvision:NAME`."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.model.builders import builder
from matrix.kind import Entry

SEED = 0


@dataclass(frozen=True)
class Listed:
    """One line: its `group` in the table, the `name` in the library, keyword `arguments` of the function that builds
    it, the `shape` of one sample, and `marks`."""

    library: str
    group: str
    name: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    marks: tuple[str, ...] = ()

    @property
    def build(self) -> str:
        """As `compress.load` takes it."""
        return f"{self.library}:{self.name}"

    def module(self) -> nn.Module:
        """With random weights, the same each time."""
        torch.manual_seed(SEED)
        return builder(self.build)(**self.arguments).eval()

    def given(self, rows: int = 2) -> Tensor:
        """A batch of noise."""
        return torch.randn(rows, *self.shape, generator=torch.Generator().manual_seed(SEED))


def listed(library: str) -> list[Listed]:
    """The lines of matrix/LIBRARY.tsv."""
    with (Path(__file__).parent / f"{library}.tsv").open(encoding="utf-8", newline="") as file:
        return [
            Listed(
                library,
                row["group"],
                row["name"],
                json.loads(row["arguments"] or "{}"),
                tuple(int(size) for size in row["shape"].split("x")),
                tuple((row["marks"] or "").split()),
            )
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]


def entries(library: str) -> list[Entry]:
    """The lines as models of the kind LIBRARY."""
    return [Entry(library, one.name, one.group, "", one.marks) for one in listed(library)]


def line_of(entry: Entry) -> Listed:
    """The line that an entry was made of."""
    return next(one for one in listed(entry.kind) if one.name == entry.name)
