"""Which configuration numbers give the wanted sizes: Newton's method with slopes measured on meta models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations
from typing import Any

from transformers import PretrainedConfig

from compress.output_format.config import Field, flags, numbers
from compress.output_format.probe import Key, measure

ROUNDS = 6
_dead: dict[tuple, set[Field]] = {}  # numbers that move no size, by class, flags and numbers left unset


@dataclass
class Solution:
    """`values` of the numbers that were found to matter, `moves` the sizes each of them moves.

    `trouble` says why the wanted sizes were not reached, None when they were.
    """

    values: dict[Field, int]
    moves: dict[Field, set[Key]] = field(default_factory=dict)
    trouble: str | None = None


def solve(
    config: PretrainedConfig,
    cls: type,
    wanted: Mapping[Key, int],
    *,
    fixed: Mapping[Field, object] | None = None,
) -> Solution:
    """Find values of the configuration's integers under which the model has the `wanted` sizes.

    Sizes are products and sums of numbers (`heads * head_dim`), so each is linear in one number while the others
    stand still: a size that depends on a single undecided number decides it, and what is left decides the next.

    Args:
        config: a small configuration (few layers) of the same widths as the original.
        cls: its model class.
        wanted: sizes to reach; keys of the model that are absent are free.
        fixed: values (numbers of layers, lists by layer) that hold throughout.
    """
    fixed = dict(fixed or {})
    base = _at(config, cls, fixed)
    if base is None:
        return Solution({}, trouble="the architecture refuses the number of layers")
    if missing := sorted({tensor for tensor, _ in wanted} - {tensor for tensor, _ in base}):
        return Solution({}, trouble=f"the architecture has no {missing[0]}")
    values, slopes = _live(config, cls, fixed, base)
    moves = {name: set(slope) for name, slope in slopes.items()}
    now, trouble = base, None
    if _equal(now, wanted):
        return Solution(_apart(values), moves)
    for _ in range(ROUNDS):
        step, trouble = _step(values, slopes, now, wanted)
        if not step:
            break
        values = {**values, **step}
        reached = _at(config, cls, {**fixed, **values})
        if reached is None:
            asked = ", ".join(f"{name} = {n}" for name, n in step.items())
            return Solution(_apart(values), moves, f"the architecture refuses {asked}")
        now = reached
        if _equal(now, wanted):  # before the slopes, which cost a model each
            return Solution(_apart(values), moves)
        slopes = {
            name: slope for name in values if (slope := _slope(config, cls, {**fixed, **values}, name, now)) is not None
        }
    if trouble is None:
        tensor, dim = next(key for key, n in wanted.items() if now.get(key) != n)
        trouble = f"no number gives {tensor} a size of {wanted[tensor, dim]} in dimension {dim}"
    return Solution(_apart(values), moves, trouble)


def _live(
    config: PretrainedConfig, cls: type, fixed: dict, base: dict[Key, int]
) -> tuple[dict[Field, int], dict[Field, dict[Key, Fraction]]]:
    """Numbers that move sizes, unset ones replaced by the value that they stand for."""
    unset = frozenset(name for name, value in numbers(config).items() if value is None)
    dead = _dead.setdefault((type(config), cls, frozenset(flags(config).items()), unset), set())
    values: dict[Field, int] = {}
    slopes: dict[Field, dict[Key, Fraction]] = {}
    refused: list[tuple[Field, int]] = []
    for name, value in numbers(config).items():
        if name in fixed or name in dead or (value is not None and value < 1):
            continue
        if value is None:
            value = _implied(config, cls, {**fixed, **values}, name, base)
        slope = None if value is None else _slope(config, cls, {**fixed, **values, name: value}, name, base)
        if slope and value is not None:
            values[name], slopes[name] = value, slope
        elif value is None or slope == {}:
            dead.add(name)
        elif slope is None and value > 1:
            refused.append((name, value))
    # Where one number alone is refused or adds projections between the two, equal numbers may move together.
    for (one, value), (two, other) in combinations(refused, 2):
        if value == other and (
            slope := _slope(config, cls, {**fixed, **values, f"{one}+{two}": value}, f"{one}+{two}", base)
        ):
            values[f"{one}+{two}"], slopes[f"{one}+{two}"] = value, slope
    # Setting `head_dim` frees it from the numbers that implied it, so their slopes are taken again.
    if any(numbers(config).get(name, 0) is None for name in values):
        slopes = {n: s for n in values if (s := _slope(config, cls, {**fixed, **values}, n, base))}
    return values, slopes


def _equal(now: Mapping[Key, int], wanted: Mapping[Key, int]) -> bool:
    return all(now.get(key) == n for key, n in wanted.items())


def _at(config: PretrainedConfig, cls: type, values: Mapping[Field, object]) -> dict[Key, int] | None:
    return measure(config, cls, _apart(values))


def _apart(values: Mapping[Field, Any]) -> dict[Field, Any]:
    """Numbers that move together (`a+b`), one by one."""
    return {one: value for name, value in values.items() for one in name.split("+")}


def _slope(
    config: PretrainedConfig, cls: type, point: dict, name: Field, here: dict[Key, int]
) -> dict[Key, Fraction] | None:
    """Change of every size by one unit of the number; None when no other value of it can be built."""
    value = point[name]
    for other in (2 * value, value // 2 if value % 2 == 0 else 0, value + 1, 1):
        if other in (0, value):
            continue
        there = _at(config, cls, {**point, name: other})
        if there is not None and there.keys() == here.keys():
            return {k: Fraction(n - here[k], other - value) for k, n in there.items() if n != here[k]}
    return None


def _implied(config: PretrainedConfig, cls: type, point: dict, name: Field, base: dict[Key, int]) -> int | None:
    """The value that an unset number stands for: the one that leaves every size as it is."""
    one, two = (_at(config, cls, {**point, name: n}) for n in (8, 16))
    if one is None or two is None or one.keys() != base.keys() or one == two:
        return None
    guesses = {8 + Fraction((base[k] - n) * 8, two[k] - n) for k, n in one.items() if two.get(k, n) != n}
    value = guesses.pop()
    if guesses or value.denominator != 1 or value < 1:
        return None
    return int(value) if _at(config, cls, {**point, name: int(value)}) == base else None


def _step(
    values: dict[Field, int],
    slopes: dict[Field, dict[Key, Fraction]],
    now: dict[Key, int],
    wanted: Mapping[Key, int],
) -> tuple[dict[Field, int], str | None]:
    """New values for the numbers that the wanted sizes decide, and a contradiction if there is one."""
    left = {key: Fraction(n - now[key]) for key, n in wanted.items() if key in now}
    users = {key: {name for name, slope in slopes.items() if key in slope} for key in left}
    step: dict[Field, int] = {}
    undecided = set(slopes)
    for key, rest in left.items():
        if rest and not users[key]:
            return {}, f"no number moves dimension {key[1]} of {key[0]}, {now[key]} → {wanted[key]}"
    while True:
        asked: dict[Field, dict[Fraction, Key]] = {}
        for key, names in users.items():
            if len(names & undecided) == 1:
                (name,) = names & undecided
                asked.setdefault(name, {}).setdefault(left[key] / slopes[name][key], key)
        if not asked:
            break
        name, deltas = min(asked.items(), key=lambda item: (len(item[1]), item[0]))
        heads = [k for k, slope in slopes[name].items() if k[0].startswith("@") and slope < 0 and k in wanted]
        if heads:  # the width of a head is hidden / heads here: a quotient, so slopes of all sizes mislead
            deltas = {Fraction(values[name] * now[heads[0]], wanted[heads[0]]) - values[name]: heads[0]}
        if len(deltas) > 1:
            (_, one), (_, other) = list(deltas.items())[:2]
            return {}, f"{one[0]} and {other[0]} both depend on {name} alone and want different values of it"
        delta, key = deltas.popitem()
        undecided.discard(name)
        if step and delta.denominator != 1:
            continue  # a product of two numbers that both change: the next round sees the slope that the first leaves
        if delta.denominator != 1:  # a size that is a quotient (hidden / heads) turns the other way round
            delta = Fraction(values[name] * now[key], wanted[key]) - values[name]
        if delta.denominator != 1 or values[name] + delta < 1:
            return {}, f"{key[0]} at {wanted[key]} would need a {name} that is no whole number"
        if delta:
            step[name] = values[name] + int(delta)
            for moved, slope in slopes[name].items():
                if moved in left:
                    left[moved] -= slope * delta
    unclear = {n for key, rest in left.items() if rest for n in users[key] & undecided}
    if unclear and not step:
        return {}, f"sizes alone do not tell {' from '.join(sorted(unclear))}"
    return step, None
