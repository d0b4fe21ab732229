"""Criteria that learn: what they learn of all families of a model, once, and where it is kept."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor

from compress.errors import InputError
from compress.graph.families import Family, Graph
from compress.score.learned_file import About, cached, read_learned, write_learned
from compress.score.scoring import Call, Criterion, Scoring
from compress.score.views import Read, Stats

Learned = Mapping[str, Tensor]


class Learner(ABC):
    """The target of a criterion of scope `learned`; its keyword-only arguments are the recipe's.

    `file` is the argument that names a file of what was learned, `after` are those that say what to do with it; what is
    learned depends on all others.
    """

    file: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def learn(self, families: Sequence[Scoring], *, seed: int) -> dict[str, Tensor]:
        """What is learned, the same for the same `families` and `seed`. `families[i].views()` reads the members anew
        each time, with the statistics that the criterion `needs`, so that one family's need be held. It may leave out
        `seed`."""

    @abstractmethod
    def check(self, families: Sequence[Scoring], learned: Learned) -> None:
        """Raises InputError where `learned`, which a file holds, is not of such families."""

    @abstractmethod
    def score(self, family: Scoring, learned: Learned) -> Tensor:
        """Score per group `[size]`, higher = keep."""


def learn(
    graph: Graph,
    families: Iterable[Family],
    criterion: Criterion,
    stats: Stats,
    read: Read,
    *,
    arguments: Mapping[str, Any] | None = None,
    seed: int = 0,
    model: str | None = None,
    data: str = "",
) -> Learned:
    """What a criterion learns of all `families`.

    Of a `model`, named by its digest, and the `data` behind `stats`, named by their key, it is learned once: it is read
    from the file that the recipe names or from the cache, else kept in both. Raises InputError where such a file holds
    something else.
    """
    arguments, families = dict(arguments or {}), list(families)
    givens = [
        Scoring(graph, f, criterion, Call(criterion, arguments, kind=f.kind, seed=seed), stats, read, arguments)
        for f in families
    ]
    learner = cast(Learner, criterion.bind(arguments)())

    def anew() -> Learned:
        seeded = "seed" in inspect.signature(learner.learn).parameters
        return learner.learn(givens, **({"seed": seed} if seeded else {}))

    if model is None:
        return anew()
    filled = criterion.model.model_validate(arguments).model_dump(mode="json")
    named = filled.pop(learner.file, None)
    filled = {name: value for name, value in filled.items() if name not in learner.after}
    about = About(criterion.name, filled, seed, model, [family.name for family in families], data)
    given = {name: filled[name] for name in arguments if name in filled}
    return _kept(
        Path(named).expanduser() if named else None, about, given, anew, lambda old: learner.check(givens, old)
    )


def _kept(
    file: Path | None,
    about: About,
    given: Mapping[str, Any],
    anew: Callable[[], Learned],
    check: Callable[[Learned], None],
) -> Learned:
    """From `file`, which must agree with the settings `given`, or the cache; else learned `anew` and kept in both."""
    if file is not None and file.exists():
        found, of = read_learned(file, about.criterion)
        for name, value in given.items():
            if (other := of.settings.get(name)) != value:
                raise InputError(
                    f"{file}: learned with {name} {other}, and the recipe says {value}; leave {name} out, or name a "
                    f"file that is not there yet"
                )
        try:
            check(found)
        except InputError as error:
            raise InputError(f"{file}: {error}; name a file that is not there yet, and it is learned anew") from None
        return found
    found = cached(about)
    if found is None:
        found = anew()
        write_learned(None, about, found)
    if file is not None:
        write_learned(file, about, found)
    return found
