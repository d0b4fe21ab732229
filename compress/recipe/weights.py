"""The step that zeroes single weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from compress.recipe.mistake import mistake
from compress.recipe.part import Criterion, Part, Ratio
from compress.recipe.share import Share
from compress.registry import criteria, ratios


def _pattern(value: Any) -> Any:
    parts = value.split(":") if isinstance(value, str) else []
    if len(parts) != 2 or not all(part.isdecimal() for part in parts) or not 0 < int(parts[0]) < int(parts[1]):
        raise mistake(f"a pattern is n:m, n zeros in every m weights of a row, as in 2:4, not {value!r}")
    return value


def _tile(value: Any) -> Any:
    parts = value.split("x") if isinstance(value, str) else []
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise mistake(f"a block is written rows x columns, as 16x16, not {value!r}")
    return value


class PruneWeights(BaseModel):
    """Zero single weights of the projections inside blocks.

    Exactly one of `remove`, the share of these weights, `until`, the share of the original model gone so far (units
    and zeros), and `pattern`: `2:4` has 2 zeros in every 4 consecutive inputs. `compare` says among which weights the
    smallest are looked for; with `block: 16x16` blocks of a matrix go as a whole, those of the smallest sums in the
    matrix. `allocate` says what share each matrix loses, `propagate` whether later blocks (with
    `true_sequential`: later projections, in half the time and more memory) are calibrated on what the pruned earlier
    ones give. `skip` are globs on names of tensors, `skip_layers` blocks left whole.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prune: Literal["weights"]
    by: Criterion
    remove: Share | None = None
    until: Share | None = None
    pattern: Annotated[str | None, BeforeValidator(_pattern)] = None
    compare: Literal["row", "layer"] | None = None
    block: Annotated[str | None, BeforeValidator(_tile)] = None
    allocate: Ratio = Part("uniform")
    propagate: Literal["true_sequential", "pruned", "dense"] = "pruned"
    skip: list[str] = []
    skip_layers: list[Annotated[int, Field(strict=True)]] = []

    @property
    def tile(self) -> tuple[int, int] | None:
        """(rows, columns) of the blocks."""
        if self.block is None:
            return None
        rows, _, columns = self.block.partition("x")
        return int(rows), int(columns)

    @property
    def n_m(self) -> tuple[int, int] | None:
        """(n, m) of the pattern."""
        if self.pattern is None:
            return None
        zeros, _, block = self.pattern.partition(":")
        return int(zeros), int(block)

    @model_validator(mode="after")
    def _whole(self) -> PruneWeights:
        given = [name for name in ("remove", "until", "pattern") if getattr(self, name) is not None]
        if len(given) != 1:
            raise mistake(f"give exactly one of `remove: 50%`, `until: 50%`, `pattern: 2:4`; this step has {given}")
        if self.pattern is not None and self.allocate.name != "uniform":
            raise mistake(f"a pattern fixes every matrix's share; leave out `allocate: {self.allocate.name}`")
        scope = criteria.get(self.by.name).meta.scope
        if not scope.for_weights:
            raise mistake(f"{self.by.name} scores units, not single weights; take magnitude, wanda, gblm or sparsegpt")
        if scope.updates and (self.block or ratios.get(self.allocate.name).meta.scores):
            what = f"block: {self.block}" if self.block else f"allocate: {self.allocate.name}"
            raise mistake(f"{self.by.name} chooses as it goes and scores nothing beforehand, which `{what}` needs")
        if self.block and (self.pattern or self.compare):
            raise mistake("blocks are compared with all others of their matrix; leave out `pattern` and `compare`")
        return self
