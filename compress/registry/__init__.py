"""Parts that a recipe names: each is a function or class that registers itself from a file of its own.

A part's keyword-only parameters are its arguments in a recipe, checked from their annotations. Nothing is listed by
hand: the first lookup imports every module of the registry's package, and those of other distributions.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, partial
from threading import RLock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from compress.errors import InputError
from compress.registry.importing import uncollected
from compress.registry.metadata import (
    AllocatorMetadata,
    CriterionMetadata,
    Metadata,
    RatioMetadata,
    RepairMetadata,
    SiteMetadata,
    SourceMetadata,
    StatisticMetadata,
    TokenMetadata,
    TokenScoreMetadata,
    checked,
)
from compress.registry.third_party import import_parts

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Target = TypeVar("Target", bound=Callable[..., Any])
Meta = TypeVar("Meta", bound=Metadata, covariant=True)

MISTAKE, MISTAKEN_ARGUMENT = "mistake", "mistaken_argument"
"""Types of pydantic errors whose text is already meant for the user."""


@dataclass(frozen=True)
class Entry(Generic[Meta]):
    """One registered part: `target` is the function or class, `meta` what its decorator was told about it."""

    kind: str
    name: str
    target: Callable[..., Any]
    meta: Meta

    @property
    def about(self) -> str:
        """First line of the docstring, "" when there is none."""
        return (inspect.getdoc(self.target) or "").partition("\n")[0]

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The keyword-only parameters, annotations resolved: a recipe may give these and nothing else."""
        found = inspect.signature(self.target).parameters.values()
        return {
            p.name: p.replace(annotation=_resolve(p.annotation, self.target)) for p in found if p.kind is p.KEYWORD_ONLY
        }

    @cached_property
    def model(self) -> type[BaseModel]:
        """Pydantic model of the arguments."""
        from pydantic import ConfigDict, create_model

        fields: dict[str, Any] = {
            name: (
                Any if p.annotation is p.empty else p.annotation,
                ... if p.default is p.empty else p.default,
            )
            for name, p in self.parameters.items()
        }
        config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
        return create_model(self.name, __config__=config, **fields)

    def problems(self, arguments: Mapping[str, Any]) -> list[tuple[tuple[int | str, ...], str]]:
        """What is wrong with `arguments`, as (place inside them, text); empty when they are right."""
        from pydantic import ValidationError

        try:
            self.model.model_validate(dict(arguments))
        except ValidationError as error:
            return explain(error, {(): self.parameters}, what="argument")
        return []

    def bind(self, arguments: Mapping[str, Any]) -> partial[Any]:
        """The target with `arguments` checked, converted and filled in; those not given keep their defaults.

        Raises InputError naming every argument that is unknown, missing or of a wrong type.
        """
        if problems := self.problems(arguments):
            lines = [": ".join((f"{self.kind} {self.name}", *map(str, place), text)) for place, text in problems]
            raise InputError("\n".join(lines))
        checked = self.model.model_validate(dict(arguments))
        return partial(self.target, **{name: getattr(checked, name) for name in checked.model_fields_set})


class Registry(Generic[Meta]):
    """The parts of one kind, which live in `package`, one file each; `metadata` is what can be said of them."""

    def __init__(self, kind: str, package: str, metadata: type[Meta] = Metadata) -> None:
        self.kind, self.package, self.metadata = kind, package, metadata
        self._entries: dict[str, Entry[Meta]] = {}
        self._walked = False
        self._lock = RLock()

    def add(self, name: str, **meta: Any) -> Callable[[Target], Target]:
        """Decorator that registers a function or class as `name`, with `meta` as the registry's `metadata` has it.

        Raises ValueError when the name is taken, TypeError for metadata that is unknown, missing or of a wrong type.
        """
        about = checked(self.metadata, meta, f"{self.kind} {name!r}")

        def register(target: Target) -> Target:
            if not target.__module__.startswith(f"{self.package}."):
                self._walk()  # the package's own names come first, so that who takes one of them is told
            taken = self._entries.get(name)
            if taken is not None and _place(taken.target) != _place(target):
                raise ValueError(f"{self.kind} {name!r} is both {_place(taken.target)} and {_place(target)}")
            self._entries[name] = Entry(self.kind, name, target, about)
            return target

        return register

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._walk()
        return sorted(self._entries)

    def get(self, name: str) -> Entry[Meta]:
        """The part called `name`. Raises InputError with the nearest name and the whole list when there is none."""
        self._walk()
        if (entry := self._entries.get(name)) is None:
            raise InputError(f"unknown {self.kind} {name!r}{did_you_mean(name, self._entries)}{_list(self._entries)}")
        return entry

    def _walk(self) -> None:
        with self._lock:
            if self._walked:
                return
            self._walked = True  # before the imports: a part may look up another while it is imported
            try:
                _import_all(self.package)
                import_parts()
            except BaseException:
                self._walked = False
                raise


def registries() -> dict[str, Registry]:
    """Every registry below, by its name here: what `compress ls` lists."""
    return {name: value for name, value in globals().items() if isinstance(value, Registry)}


def did_you_mean(word: object, words: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of `words`, "" when none is near."""
    near = get_close_matches(str(word), sorted(words), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def explain(
    error: ValidationError, known: Mapping[tuple[int | str, ...], Iterable[str]], *, what: str
) -> list[tuple[tuple[int | str, ...], str]]:
    """Pydantic's errors as (place, text), unknown names with the nearest one.

    `known` maps a place to the names that may stand there; `what` is the word for such a name (key, argument).
    """
    found = []
    for item in error.errors(include_url=False):
        place, text = item["loc"], item["msg"]
        if item["type"] == "extra_forbidden":
            names = list(known.get(place[:-1], ()))
            text = f"unknown {what}{did_you_mean(place[-1], names)}{_list(names)}"
        elif item["type"] == "missing":
            text = f"{what} {place[-1]!r} is missing"
            place = place[:-1]
        elif item["type"] == "too_short" and not item["input"]:
            text = "at least one is needed, this is empty"
        elif item["type"] in ("value_error", "assertion_error"):
            text = str(item.get("ctx", {}).get("error", text))
        elif item["type"] not in (MISTAKE, MISTAKEN_ARGUMENT):
            value = item["input"]
            text = text[0].lower() + text[1:]
            if isinstance(value, str | int | float | bool | None):
                text += f", not {value!r}"
            if item["type"] == "literal_error" and isinstance(value, str):
                text += did_you_mean(value, str(item.get("ctx", {}).get("expected", "")).split("'")[1::2])
        found.append((place, text))
    return found


def _list(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return f" (known: {', '.join(ordered)})" if ordered else " (none is known)"


def _place(target: Callable[..., Any]) -> str:
    return f"{target.__module__}.{target.__qualname__}"


def _resolve(annotation: Any, target: Callable[..., Any]) -> Any:
    """Strings left by `from __future__ import annotations` are read in the part's own module."""
    if not isinstance(annotation, str):
        return annotation
    return eval(annotation, vars(sys.modules[inspect.unwrap(target).__module__]))


@uncollected(freeze=True)
def _import_all(package: str) -> None:
    root = importlib.import_module(package)
    for module in pkgutil.iter_modules(getattr(root, "__path__", ()), package + "."):
        if module.ispkg:
            _import_all(module.name)
        else:
            importlib.import_module(module.name)


criteria = Registry("criterion", "compress.criteria", CriterionMetadata)
allocators = Registry("allocator", "compress.allocate", AllocatorMetadata)
ratios = Registry("layer ratio", "compress.ratios", RatioMetadata)
repairs = Registry("repair", "compress.repair", RepairMetadata)
sites = Registry("site", "compress.calibrate.sites", SiteMetadata)
statistics = Registry("statistic", "compress.calibrate.statistics", StatisticMetadata)
scopes = Registry("scope", "compress.score.scopes")
sources = Registry("source", "compress.data.sources", SourceMetadata)
rules = Registry("runtime rule", package="compress.runtime.rules")
token_places = Registry("place of visual tokens", "compress.runtime.tokens.places")
token_scores = Registry("token score", "compress.runtime.tokens.score", TokenScoreMetadata)
token_selects = Registry("token selection", "compress.runtime.tokens.select", TokenMetadata)
token_residuals = Registry("token residual", "compress.runtime.tokens.residual", TokenMetadata)
steps = Registry("step", package="compress.steps")
formats = Registry("export format", package="compress.export")
inputs = Registry("kind of inputs", package="compress.inputs")
tasks = Registry("task", package="compress.tasks")
