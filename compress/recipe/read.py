"""Read a recipe: every mistake at once, each with its place and, where a name is near, a suggestion."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compress.errors import InputError
from compress.files.ordinary import check_ordinary
from compress.files.shipped import names as shipped_names
from compress.files.shipped import shipped, which
from compress.recipe.export import settings_of
from compress.recipe.schema import Calibrate, Recipe
from compress.recipe.source import Place, Source, value_of
from compress.recipe.step import step_model
from compress.registry import MISTAKEN_ARGUMENT, did_you_mean, explain, formats


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in the file `path`, with overrides such as `steps.0.remove=30%` on top.

    Where there is no such file, `path` may be the name of a recipe that ships: `flap-20`, `contrasts/structured`.
    Raises InputError whose message has one line `file:line:col: place: what; did you mean …?` for every mistake.
    """
    path = Path(path if isfile(path) else shipped(str(path)) or path)
    try:
        if not isdir(path):
            check_ordinary(path)
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe{_near(path)} ({which()})") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a recipe is a YAML file, this is a folder ({which()})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_recipe(text, name=str(path), overrides=overrides)


def parse_recipe(text: str, *, name: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """As `read_recipe`, from the text itself; `name` stands for the file in messages."""
    source = Source(text, name)
    if not isinstance(source.data, dict):
        what = "is empty" if source.data is None else "is not a mapping"
        raise InputError(f"{name}:1:1: the recipe {what}; it starts with `steps:`")
    try:
        data = copy.deepcopy(source.data)
    except RecursionError:
        raise InputError(f"{name}: an anchor contains itself") from None
    wrong: list[str] = []
    places: dict[Place, str] = {}
    for override in overrides:
        try:
            places[_apply(data, override)] = override
        except InputError as error:
            wrong.append(str(error))
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        wrong += _located(error, source, data, places)
    else:
        if not wrong:
            return recipe
    raise InputError("\n".join(wrong))


def _located(error: ValidationError, source: Source, data: Any, overridden: dict[Place, str]) -> list[str]:
    lines: list[tuple[tuple[int, int], str]] = []
    unknown = {
        item["loc"]
        for item in error.errors(include_url=False)
        if item["type"] in ("extra_forbidden", MISTAKEN_ARGUMENT)
    }
    for place, text in explain(error, _known(data), what="key"):
        line, column = source.locate(place, key=place in unknown)
        override = next((said for at, said in overridden.items() if at and place[: len(at)] == at), None)
        shown = ".".join(str(step) for step in _existing(data, place))
        text = f"{shown}: {text}" if shown else text
        if override is not None:
            lines.append(((0, 0), f"--set {override}: {text}"))
        else:
            lines.append(((line, column), f"{source.name}:{line}:{column}: {text}"))
    return list(dict.fromkeys(text for _, text in sorted(lines, key=lambda row: row[0])))


def _known(data: Any) -> dict[Place, Sequence[str]]:
    """The keys that may stand at each place of this recipe."""
    known: dict[Place, Sequence[str]] = {
        (): list(Recipe.model_fields),
        ("calibrate",): list(Calibrate.model_fields),
    }
    steps = data.get("steps")
    for i, step in enumerate(steps if isinstance(steps, list) else ()):
        known["steps", i] = list(step_model(step).model_fields)
    exports = data.get("export")
    for name in exports if isinstance(exports, dict) else ():
        if name in formats.names():
            known["export", name] = list(settings_of(name).model_fields)
    return known


def _existing(data: Any, place: Place) -> Place:
    """`place` as far as it exists: a validator's own detours (the kind in `prune: heads` is item 0) are left out."""
    inside = data
    for depth, step in enumerate(place):
        items: dict[Any, Any] = inside if isinstance(inside, dict) else {}
        if isinstance(inside, list):
            items = dict(enumerate(inside))
        if step not in items:
            return place[:depth]
        inside = items[step]
    return place


def _apply(data: dict[str, Any], override: str) -> Place:
    """Set the value in place and return where. A mapping on the way that is missing is made, a list item is not."""
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise InputError(f"--set {override}: write it as key=value, for example steps.0.remove=30%")
    try:
        value = value_of(text)
    except InputError as error:
        raise InputError(f"--set {override[:200]}: {error}") from None
    node: Any = data
    place: list[int | str] = []
    words = path.strip().split(".")
    for depth, word in enumerate(words):
        step = _step(node, word, words[:depth], override)
        place.append(step)
        if depth == len(words) - 1:
            node[step] = value
        else:
            if isinstance(node, dict) and node.get(word) is None:
                node[word] = {}
            node = node[step]
    return tuple(place)


def _step(node: Any, word: str, before: Sequence[str], override: str) -> int | str:
    """`word` as the key or index that it is inside `node`."""
    so_far = ".".join(before) or "the recipe"
    if isinstance(node, dict):
        return word
    if not isinstance(node, list):
        raise InputError(f"--set {override}: {so_far} is {node!r}, there is nothing inside it to set")
    if word.isdecimal() and int(word) < len(node):
        return int(word)
    have = f"{so_far} has items 0 to {len(node) - 1}" if node else f"{so_far} is empty"
    raise InputError(f"--set {override}: the recipe has no '{'.'.join((*before, word))}'; {have}")


def _near(path: Path) -> str:
    folder = path.parent
    names = [file.name for pattern in ("*.yaml", "*.yml") for file in folder.glob(pattern)] if folder.is_dir() else []
    own = path.with_suffix("").as_posix().removeprefix("recipes/")
    return did_you_mean(path.name, names) or did_you_mean(own, shipped_names())
