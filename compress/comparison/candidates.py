"""The recipes of a comparison: files and folders of them, each as it stands or in every value of a sweep."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from compress.errors import InputError
from compress.files.shipped import RECIPES
from compress.recipe.read import read_recipe
from compress.recipe.schema import Recipe

BETWEEN = re.compile(r",(?![^\[{]*[\]}])")
"""A comma between two values; one inside brackets belongs to a value."""


@dataclass(frozen=True)
class Candidate:
    """A recipe and the name of its row and of its folder."""

    name: str
    recipe: Recipe


def candidates(recipes: Sequence[Path], sweeps: Sequence[str] = (), overrides: Sequence[str] = ()) -> list[Candidate]:
    """Every recipe, in every combination of the values in `sweeps` (`steps.0.remove=10%,20%`).

    A folder stands for the recipes in it; folders and recipes that ship go by name. `overrides` are set in all of them.
    Raises InputError with all mistakes of the first recipe that has some, and when two would have the same name.
    """
    found: list[Candidate] = []
    for path in (file for given in recipes for file in _files(given)):
        for settings in product(*map(_values, sweeps)):
            last = [f"{key.rpartition('.')[2]}={value}" for key, value in settings]
            name = re.sub(r"[^\w.%=+-]+", "_", "-".join([path.stem, *last]))
            read = read_recipe(path, [*overrides, *(f"{key}={value}" for key, value in settings)])
            found.append(Candidate(name, read))
    names = [candidate.name for candidate in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{twice[0]}: two recipes of this name; rename one, their folders would be the same")
    return found


def _files(path: Path) -> Iterator[Path]:
    if not path.exists() and (RECIPES / path).is_dir():
        path = RECIPES / path
    if not path.is_dir():
        yield path
        return
    files = sorted(path.glob("*.yaml"))
    if not files:
        raise InputError(f"{path}: no recipe (*.yaml) in this folder")
    yield from files


def _values(sweep: str) -> list[tuple[str, str]]:
    key, equals, text = sweep.partition("=")
    values = [value.strip() for value in BETWEEN.split(text)]
    if not equals or not key.strip() or not all(values):
        raise InputError(f"--sweep {sweep}: write it as key=value,value, for example steps.0.remove=10%,20%")
    return [(key.strip(), value) for value in values]
