"""What can be asked about a picture, with the one right answer."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from .scenes import COLORS, NUMBERS, OUTLINES, Scene

ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
CLEAR = 1 / 31
"""The share of a picture's side by which a place or an order must be beyond doubt to be asked for."""

MOST = 3
"""Questions of one kind about a picture: there would be most of those that are learnt first."""


@dataclass(frozen=True)
class Question:
    """One question of a `kind`; `about` is the place in the scene of the object that it names, or None."""

    kind: str
    text: str
    answer: str
    about: int | None


def questions(scene: Scene, draw: random.Random, count: int) -> list[Question]:
    """So many different ones, their kinds as evenly as the scene has them; fewer where it has no more."""
    by_kind: dict[str, list[Question]] = defaultdict(list)
    for question in all_questions(scene):
        by_kind[question.kind].append(question)
    by_kind = {kind: draw.sample(found, min(MOST, len(found))) for kind, found in by_kind.items()}
    chosen: list[Question] = []
    while by_kind and len(chosen) < count:
        for kind in draw.sample(list(by_kind), min(len(by_kind), count - len(chosen))):
            chosen.append(by_kind[kind].pop())
            if not by_kind[kind]:
                del by_kind[kind]
    return chosen


def all_questions(scene: Scene) -> Iterator[Question]:
    """Every question with one answer."""
    yield Question("digit", "Which digit is shown?", scene.things[0].look, 0)
    yield Question("count", "How many shapes are there?", NUMBERS[len(scene.shapes)], None)
    for place, thing in enumerate(scene.things):
        if found := _region(scene, place):
            yield Question("where", f"Where is the {thing.name}?", found, place)
        yield from _relations(scene, place)
        if place:
            yield from _looks(scene, place)
    names = [thing.name for thing in scene.things]
    for name in OUTLINES:
        there = name in names
        yield Question("exist", f"Is there a {name}?", "yes" if there else "no", names.index(name) if there else None)


def _looks(scene: Scene, place: int) -> Iterator[Question]:
    """A shape's filling by its name, and its name by its filling."""
    thing = scene.things[place]
    if thing.look in COLORS:
        yield Question("color", f"What color is the {thing.name}?", thing.look, place)
    else:
        yield Question("material", f"Which material is the {thing.name}?", thing.look, place)
    if [other.look for other in scene.shapes].count(thing.look) == 1:
        yield Question("shape", f"Which shape is {thing.look}?", thing.name, place)


def _region(scene: Scene, place: int) -> str | None:
    """In which ninth of the picture an object's center lies, if clearly in one."""
    thing, side = scene.things[place], len(scene.picture)
    third = side / 3
    if any(abs(center - border) < CLEAR * side for center in (thing.x, thing.y) for border in (third, 2 * third)):
        return None
    return f"{ROWS[int(thing.y // third)]} {COLUMNS[int(thing.x // third)]}"


def _relations(scene: Scene, place: int) -> Iterator[Question]:
    """Sides of an object on which there is exactly one other; all others are clearly not there."""
    thing = scene.things[place]
    others = [other for other in scene.things if other is not thing]
    for words, side in (
        ("left of", [thing.x - other.x for other in others]),
        ("right of", [other.x - thing.x for other in others]),
        ("above", [thing.y - other.y for other in others]),
        ("below", [other.y - thing.y for other in others]),
    ):
        there = [other for other, beyond in zip(others, side, strict=True) if beyond > 0]
        if len(there) == 1 and all(abs(beyond) > CLEAR * len(scene.picture) for beyond in side):
            yield Question("relation", f"What is {words} the {thing.name}?", there[0].name, place)
