"""PruneNet (Sengupta et al. 2025, https://arxiv.org/abs/2501.15296)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from compress.criteria.prunenet.policy import Training, drawn
from compress.errors import InputError
from compress.recipe.share import Share
from compress.registry import criteria
from compress.registry.scope import Scope
from compress.score.learning import Learner
from compress.score.scoring import Scoring
from compress.score.views import is_stack


@criteria.add("prunenet", scope=Scope.LEARNED, kinds=("channels",), paper="2501.15296")
@dataclass(frozen=True, kw_only=True)
class PruneNet(Learner):
    """(W Pᵀ + b) r of the first matrix W of an MLP: a policy learned without data, to keep the spectrum of W.

    One policy for all layers, trained once with the share `train_at` of the rows gone and good for any other. The rows
    that it finds best stay; with `draw`, the seed of a draw, they are drawn by its chances as the published code does.
    `policy` is a file: it is read if it is there, else it is written.
    """

    train_at: Share = 0.4
    episodes: Annotated[int, Field(ge=1)] = 20
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    draw: int | None = None
    policy: Path | None = None

    after: ClassVar[tuple[str, ...]] = ("draw",)
    file: ClassVar[str] = "policy"

    def learn(self, families: Sequence[Scoring], *, seed: int) -> dict[str, Tensor]:
        """`direction` `[columns]` and `offset` `[]`. Raises InputError where the first matrices differ in shape."""
        shapes = {family.family.name: first_matrix(family).shape for family in families}
        (first, shape), *others = shapes.items()
        for name, other in others:
            if other != shape:
                raise InputError(
                    f"prunenet has one policy for all layers, and {first} reads a matrix {list(shape)}, {name} one "
                    f"{list(other)}; `skip` one of them, or take another criterion"
                )
        matrices = [partial(first_matrix, family) for family in families]
        return Training(matrices, self.train_at, self.episodes, self.learning_rate, seed).run()

    def check(self, families: Sequence[Scoring], learned: Mapping[str, Tensor]) -> None:
        """Raises InputError for a policy of another width."""
        for family in families:
            columns = first_matrix(family).shape[1]
            found = {name: list(value.shape) for name, value in learned.items()}
            if found != {"direction": [columns], "offset": []}:
                raise InputError(
                    f"a policy of {columns} columns is needed for {family.family.name}, the file's is "
                    f"{found.get('direction', 'none')}"
                )

    def score(self, family: Scoring, learned: Mapping[str, Tensor]) -> Tensor:
        """The logit of α: α itself is 1 for many rows once it is rounded. Or a draw by α."""
        logits = first_matrix(family).double() @ learned["direction"].double() + learned["offset"].double()
        if self.draw is None:
            return logits
        seed = zlib.crc32(f"{self.draw}/{family.family.name}".encode())  # layers differ, their order is free
        return drawn(logits, torch.Generator().manual_seed(seed))


def first_matrix(given: Scoring) -> Tensor:
    """The first matrix that puts out the family's channels, float32 `[size, columns]`.

    Raises InputError where its rows are not the channels, one each.
    """
    family = given.family
    for view in given.views():
        if view.role != "out":
            continue
        if is_stack(given.graph, view.tensor):
            raise InputError(f"prunenet scores the rows of one matrix, and {view.tensor} has one for each expert")
        order = view.units.argsort()
        if not torch.equal(view.units[order], torch.arange(family.size)):
            raise InputError(f"prunenet scores rows, and {view.tensor} has not one for each channel of {family.name}")
        return view.weight[order]
    raise InputError(f"prunenet scores the rows of the matrix that puts out channels, and {family.name} has none")
