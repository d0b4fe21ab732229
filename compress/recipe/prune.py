"""The step that removes whole units: heads, channels, experts, layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core import InitErrorDetails

from compress.recipe.mistake import inside, mistake
from compress.recipe.part import Allocator, Criterion, Part, Repair
from compress.recipe.share import Share
from compress.registry import criteria, did_you_mean
from compress.registry.metadata import CriterionMetadata
from compress.registry.scope import Scope

PrunableKind = Literal["heads", "queries", "head_dim", "channels", "hidden", "experts", "layers"]
Merge = Literal["average", "frequency", "selective"]
Measure = Literal["params", "flops", "latency"]
Widths = Literal["uniform", "per-layer"]
KINDS: tuple[str, ...] = get_args(PrunableKind)
BUDGETS = ("remove", "until", "keep")
NOT_PRUNED = {
    "vocab": "the vocabulary is a step of its own: `prune: vocab`, alone",
    "weights": "single weights are a step of their own: `prune: weights`, alone",
    "other": "families of kind 'other' have no known meaning, so nothing prunes them",
}


class Budget(NamedTuple):
    """A step's one budget: `verb` (remove, until, keep), `share` in (0, 1), and what `keep` is a share of."""

    verb: Literal["remove", "until", "keep"]
    share: float
    measure: Measure | None = None


def _kind(value: Any) -> str:
    if value in KINDS:
        return value
    known = f" (known: {', '.join(KINDS)})"
    text = NOT_PRUNED.get(value) if isinstance(value, str) else None
    raise mistake((text or f"unknown kind {value!r}{did_you_mean(value, KINDS)}") + known)


def _listed(value: Any) -> Any:
    """One or several, always a list; the same kind twice is a slip."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        for kind in value:
            if isinstance(kind, str) and value.count(kind) > 1:
                raise mistake(f"{kind!r} stands here twice")
    return value


Kinds = Annotated[
    list[Annotated[PrunableKind, BeforeValidator(_kind)]],
    Field(min_length=1),
    BeforeValidator(_listed),
    WithJsonSchema(
        {"anyOf": [{"enum": list(KINDS)}, {"type": "array", "minItems": 1, "items": {"enum": list(KINDS)}}]}
    ),
]


class Prune(BaseModel):
    """Remove whole units of some kinds. A step has exactly one budget: `remove`, `until` or `keep`."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"oneOf": [{"required": [key]} for key in BUDGETS]}
    )

    prune: Kinds = Field(description="The kinds of units to remove; one, or several that share the budget.")
    by: Criterion = Field(description="The criterion that scores the units; the lowest scores go.")
    remove: Share | None = Field(default=None, description="The budget as a share of what these units hold now.")
    until: Share | None = Field(
        default=None,
        description="The budget as the share of the original model's parameters that is gone after this step.",
    )
    keep: dict[Measure, Share] | None = Field(
        default=None,
        description="The budget as what stays of the original model's parameters, FLOPs or measured latency: "
        "`{flops: 60%}`.",
    )
    allocate: Allocator = Field(
        default=Part("uniform"), description="The allocator that spreads the budget over layers and kinds."
    )
    repair: Repair | None = Field(
        default=None, description="What makes up for the removed units in the weights that read them; nothing without."
    )
    clusters: Literal["linkage", "greedy"] = Field(
        default="linkage",
        description="How experts that are alike are grouped: by complete `linkage`, or `greedy` as STUN's code does. "
        "For criteria that measure distances between experts.",
    )
    stay: Criterion | None = Field(
        default=None,
        description="The criterion whose favourite stays of each cluster of experts; without it, the expert nearest to "
        "the cluster's mean.",
    )
    merge: Merge | None = Field(
        default=None,
        description="Put each cluster of experts together instead: their `average`, their mean weighted by routing "
        "`frequency`, or `selective`, the average in layers of at most three clusters (STUN).",
    )
    align: bool = Field(
        default=False, description="Match the inner channels of experts to each other before they are merged (UNCURL)."
    )
    round: Annotated[int, Field(ge=1, le=2**31, strict=True)] = Field(
        default=1,
        description="The number of units that a layer keeps is a multiple of this; of several kinds, of channels.",
    )
    widths: Widths = Field(
        default="uniform",
        description="Whether all layers keep the same number of units. `uniform` gives an ordinary checkpoint; with "
        "`per-layer` a modeling file may have to go along.",
    )
    propagate: Literal["dense", "pruned"] = Field(
        default="dense",
        description="Whether blocks are calibrated on what the dense or the pruned earlier blocks put out. `pruned` "
        "decides block after block.",
    )
    reduce: Literal["sum", "mean", "max", "l2"] = Field(
        default="sum", description="How saliencies of single weights become one of the unit."
    )
    skip: list[str] = Field(default=[], description="Globs on names of families or tensors that stay whole.")
    skip_layers: list[Annotated[int, Field(strict=True)]] = Field(
        default=[], description="Indices of blocks that stay whole; negative ones count from the end."
    )

    @property
    def budget(self) -> Budget:
        """The one budget of this step."""
        if self.remove is not None:
            return Budget("remove", self.remove)
        if self.until is not None:
            return Budget("until", self.until)
        measure, share = next(iter((self.keep or {}).items()))
        return Budget("keep", share, measure)

    @model_validator(mode="wrap")
    @classmethod
    def _whole(cls, data: Any, handler: Any) -> Any:
        """The step's own rules, reported together with the errors of its fields."""
        problems = list(_step_problems(data)) if isinstance(data, dict) else []
        try:
            step = handler(data)
        except ValidationError as error:
            raise _joined(cls.__name__, error, problems) from None
        if problems:
            raise _joined(cls.__name__, None, problems)
        return step


def _step_problems(step: dict[Any, Any]) -> list[tuple[tuple[str, ...], str]]:
    found: list[tuple[tuple[str, ...], str]] = []
    given = [key for key in step if key in BUDGETS and step[key] is not None]
    if not given:
        found.append(((), "no budget; add one of `remove: 20%`, `until: 20%`, `keep: {params: 80%}`"))
    elif len(given) > 1:
        found.append(((given[-1],), f"a step has one budget, this one has {' and '.join(given)}; leave one out"))
    if isinstance(step.get("keep"), dict) and len(step["keep"]) != 1:
        found.append((("keep",), "give exactly one of params, flops, latency, as in {params: 80%}"))
    kinds = [step.get("prune")] if isinstance(step.get("prune"), str) else step.get("prune") or []
    name = _name(step.get("by"))
    kinds = kinds if isinstance(kinds, list) else []
    meta = _meta(name)
    scope = meta.scope if meta is not None else None
    others = [kind for kind in kinds if kind in KINDS and meta is not None and not meta.ranks(kind)]
    if others and meta is not None:
        text = "updates single weights; say `prune: weights` with it" if meta.scope.updates else f"ranks {meta.ranked}"
        found.append((("by",), f"criterion {name!r} {text}, it cannot rank {' and '.join(others)}"))
    if step.get("align") and step.get("merge") is None:
        found.append((("align",), "only what is merged is aligned; add `merge: average` or `merge: frequency`"))
    if scope is not None and not scope.makes_clusters:
        if step.get("merge") is not None:
            found.append((("merge",), f"criterion {name!r} makes no clusters to merge; {_those(Scope.DISTANCES)} do"))
        if step.get("clusters") == "greedy":
            found.append((("clusters",), f"criterion {name!r} makes no clusters; {_those(Scope.DISTANCES)} do"))
    if step.get("stay") is not None:
        found += _stay_problems(step["stay"], step.get("merge"), name, scope)
    return found


def _stay_problems(stay: Any, merge: Any, name: Any, scope: Scope | None) -> Iterator[tuple[tuple[str, ...], str]]:
    if scope is not None and not scope.makes_clusters:
        yield ("stay",), f"criterion {name!r} makes no clusters to choose from; {_those(Scope.DISTANCES)} do"
    if merge is not None:
        yield ("stay",), "a cluster is merged or one of it stays; leave out `merge` or `stay`"
    own = _name(stay)
    if (meta := _meta(own)) is not None and meta.scope is not Scope.EXPERTS:
        yield ("stay",), f"criterion {own!r} does not rank a layer's experts; {_those(Scope.EXPERTS)} do"


def _meta(name: Any) -> CriterionMetadata | None:
    """What is said of the criterion called `name`, None where there is none."""
    return criteria.get(name).meta if isinstance(name, str) and name in criteria.names() else None


def _those(scope: Scope) -> str:
    """Names of the criteria of a scope."""
    return " and ".join(name for name in criteria.names() if criteria.get(name).meta.scope is scope)


def _name(part: Any) -> Any:
    """The name of a criterion as a recipe writes it."""
    return next(iter(part)) if isinstance(part, dict) and len(part) == 1 else getattr(part, "name", part)


def _joined(title: str, error: ValidationError | None, problems: list[tuple[tuple[str, ...], str]]) -> ValidationError:
    details = inside((), error) if error else []
    details += [InitErrorDetails(type=mistake(text), loc=loc, input=None) for loc, text in problems]
    return ValidationError.from_exception_data(title, details)
