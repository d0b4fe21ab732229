"""What a part's decorator may say of it, one class for each kind of part: nothing else is accepted.

Keys and types are checked when the part's file is imported, so that an option nobody reads cannot live.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_type_hints

from compress.registry.scope import Scope

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Conditions = Mapping[str, tuple[str, ...] | Mapping[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Metadata:
    """Of any part: `paper`, the arXiv number of the one it follows, "" where there is none."""

    paper: str = ""


@dataclass(frozen=True)
class Needing(Metadata):
    """Of a part that is given statistics: those it always `needs`.

    `when` are those needed only with some arguments: `{argument: statistics}` if it is true, `{argument: {value:
    statistics}}` if it has that value.
    """

    needs: tuple[str, ...] = ()
    when: Conditions = field(default_factory=dict)

    def statistics(self, arguments: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Names of the statistics needed with these recipe arguments."""
        names = list(self.needs)
        for argument, more in self.when.items():
            given = (arguments or {}).get(argument)
            if given:
                some = more.get(given, ()) if isinstance(more, Mapping) else more
                names += [name for name in some if name not in names]
        return tuple(names)


@dataclass(frozen=True, kw_only=True)
class CriterionMetadata(Needing):
    """`on` is `in` where only weights that consume a group count for it, `all` where every member does. `kinds`: the
    only ones that it ranks, of those that its scope does; empty for all of them."""

    scope: Scope
    on: Literal["in", "all"] = "all"
    kinds: tuple[str, ...] = ()

    def is_scored(self, role: str) -> bool:
        """Whether a member of this role counts (and so needs its statistics)."""
        return role == "in" or self.on == "all"

    def ranks(self, kind: str) -> bool:
        """Whether groups of a family of this kind can be ranked."""
        return self.scope.ranks(kind) and (not self.kinds or kind in self.kinds)

    @property
    def ranked(self) -> str:
        """The kinds that can be ranked, in words."""
        return " and ".join(self.kinds) or self.scope.ranked


@dataclass(frozen=True)
class AllocatorMetadata(Needing):
    """`normalize`: how scores are made comparable beforehand. `layerwise`: each layer gets a width of its own.

    `measures`: it tries cuts out on the model, and is a class: see `compress.allocate.spend.Measuring`.
    """

    normalize: Literal["zscore"] | None = None
    layerwise: bool = False
    measures: bool = False


@dataclass(frozen=True)
class RatioMetadata(Needing):
    """`scores`: it asks for the criterion's saliency of every weight."""

    scores: bool = False


@dataclass(frozen=True, kw_only=True)
class RepairMetadata(Needing):
    """`adds_bias`: weights without a bias get one."""

    adds_bias: bool


@dataclass(frozen=True, kw_only=True)
class StatisticMetadata(Metadata):
    """`at` is the site it is read at, by name; `sums` are those over tokens that it is computed from."""

    at: str
    sums: tuple[str, ...]


@dataclass(frozen=True)
class SiteMetadata(Metadata):
    """`backward`: its keys are parameters whose gradients are told, after a way back through the model.

    `per_weight`: its statistics have the shape of their weight. `waits`: its sums can be gathered at once of all
    batches, which wait for each other there. `names_tensors`: its keys are stored tensors.
    """

    backward: bool = False
    per_weight: bool = False
    waits: bool = False
    names_tensors: bool = True


@dataclass(frozen=True)
class SourceMetadata(Metadata):
    """`gives` is what there is in it to calibrate on."""

    gives: Literal["text", "tokens", "images", "classes", "captions", "speech", "arrays"] = "text"


TokenNeed = Literal[
    "attention",
    "cls",
    "cls_value",
    "choose",
    "generator",
    "grid",
    "hidden",
    "inputs",
    "keep",
    "key",
    "logits",
    "outputs",
    "pixels",
    "previous",
    "scores",
    "selection",
    "sizes",
    "text",
    "tower_hidden",
    "value",
]
"""What a part that prunes tokens may be handed: `compress.runtime.tokens` says what each is."""


@dataclass(frozen=True, kw_only=True)
class TokenMetadata(Metadata):
    """Of a part that prunes tokens: `needs`, the names of its positional parameters, in their order."""

    needs: tuple[TokenNeed, ...]


@dataclass(frozen=True, kw_only=True)
class TokenScoreMetadata(TokenMetadata):
    """`square`: of attention it reads the rows of the group's own tokens only, whatever its arguments say."""

    square: bool = False


Meta = TypeVar("Meta", bound=Metadata)


def checked(kind: type[Meta], given: Mapping[str, Any], part: str) -> Meta:
    """`given` as metadata of a kind. Raises TypeError naming the `part`, the key and what it may be."""
    from pydantic import ValidationError

    readers = _readers(kind)
    if unknown := [name for name in given if name not in readers]:
        raise TypeError(f"{part}: unknown metadata {unknown[0]!r} (known: {', '.join(sorted(readers))})")
    for item in fields(kind):
        if item.name not in given and item.default is MISSING and item.default_factory is MISSING:
            raise TypeError(f"{part}: metadata {item.name!r} is missing")
    for name, value in given.items():
        try:
            readers[name].validate_python(value, strict=True)
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
            raise TypeError(f"{part}: metadata {name}={value!r}: {said[0].lower()}{said[1:]}") from None
    return kind(**given)


@cache
def _readers(kind: type[Metadata]) -> dict[str, TypeAdapter[Any]]:
    """What checks each key's value."""
    from pydantic import TypeAdapter

    return {name: TypeAdapter(hint) for name, hint in get_type_hints(kind).items()}
