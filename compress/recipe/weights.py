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
        raise mistake(f"a pattern is n:m, n weights kept of every m of a row, as in 2:4, not {value!r}")
    return value


def _tile(value: Any) -> Any:
    parts = value.split("x") if isinstance(value, str) else []
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise mistake(f"a block is written rows x columns, as 16x16, not {value!r}")
    return value


class PruneWeights(BaseModel):
    """Zero single weights of projections; a step has one of `remove`, `until` and `pattern`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prune: Literal["weights"] = Field(description="Single weights (unstructured or semi-structured sparsity).")
    by: Criterion = Field(description="The criterion that scores the weights; the lowest scores become zero.")
    remove: Share | None = Field(
        default=None, description="The budget as the share of these weights that becomes zero."
    )
    until: Share | None = Field(
        default=None,
        description="The budget as the share of the original model that is gone after this step, units and zeros "
        "together.",
    )
    pattern: Annotated[str | None, BeforeValidator(_pattern)] = Field(
        default=None,
        description="The budget as n:m, n weights kept of every m consecutive inputs of a row: `2:4` leaves half, "
        "`1:4` a quarter.",
    )
    compare: Literal["row", "layer"] | None = Field(
        default=None,
        description="Among which weights the lowest scores are looked for: each output's `row`, or the whole matrix "
        "(`layer`); `row` is the default.",
    )
    block: Annotated[str | None, BeforeValidator(_tile)] = Field(
        default=None,
        description="Zero whole blocks of rows × columns, as `16x16`, those with the lowest sums in their matrix.",
    )
    allocate: Ratio = Field(
        default=Part("uniform"), description="The layer ratio: what share of its weights each matrix loses."
    )
    propagate: Literal["true_sequential", "pruned", "dense"] = Field(
        default="pruned",
        description="Whether blocks are calibrated on what the `dense` or the `pruned` earlier blocks put out; "
        "`true_sequential` goes projection after projection inside a block too.",
    )
    where: Literal["blocks", "all"] = Field(
        default="blocks",
        description="Which projections: those inside the repeated `blocks`, or `all` but vocabularies, as in networks "
        "whose stages are each made differently.",
    )
    skip: list[str] = Field(default=[], description="Globs on names of tensors that stay as they are.")
    skip_layers: list[Annotated[int, Field(strict=True)]] = Field(
        default=[], description="Indices of blocks that stay as they are; negative ones count from the end."
    )

    @property
    def tile(self) -> tuple[int, int] | None:
        """(rows, columns) of the blocks."""
        if self.block is None:
            return None
        rows, _, columns = self.block.partition("x")
        return int(rows), int(columns)

    @property
    def zeros_of(self) -> tuple[int, int] | None:
        """How many weights of every so many the pattern makes zero: (2, 4) of `2:4`, (3, 4) of `1:4`."""
        if self.pattern is None:
            return None
        kept, block = map(int, self.pattern.split(":"))
        return block - kept, block

    @model_validator(mode="after")
    def _whole(self) -> PruneWeights:
        given = [name for name in ("remove", "until", "pattern") if getattr(self, name) is not None]
        if len(given) != 1:
            raise mistake(f"give exactly one of `remove: 50%`, `until: 50%`, `pattern: 2:4`; this step has {given}")
        if self.pattern is not None and self.allocate.name != "uniform":
            raise mistake(f"a pattern fixes every matrix's share; leave out `allocate: {self.allocate.name}`")
        meta = criteria.get(self.by.name).meta
        scope = meta.scope
        if not scope.for_weights:
            raise mistake(f"{self.by.name} scores units, not single weights; take magnitude, wanda, gblm or sparsegpt")
        if scope.updates and (self.block or ratios.get(self.allocate.name).meta.scores):
            what = f"block: {self.block}" if self.block else f"allocate: {self.allocate.name}"
            raise mistake(f"{self.by.name} chooses as it goes and scores nothing beforehand, which `{what}` needs")
        if self.where == "all" and self.propagate != "dense" and meta.statistics(self.by.arguments):
            raise mistake("what lies outside of blocks is calibrated on the dense model alone; add `propagate: dense`")
        if self.block and (self.pattern or self.compare):
            raise mistake("blocks are compared with all others of their matrix; leave out `pattern` and `compare`")
        return self
