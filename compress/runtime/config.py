"""The key `compress` of config.json: what its writer asks of whoever runs the model. Other software ignores it.

    "compress": {"version": 1, "rules": [{"kind": "skip_experts", "thresholds": {…}, "protect": 0.02}]}

Folders written before that have the one rule under `expert_skipping`; they are read as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from compress.errors import InputError, ModelError
from compress.registry import rules

KEY = "compress"
VERSION = 1
"""Raised when the form of the key changes; a new kind of rule does not change it."""

OLD_KEY, OLD_KIND = "expert_skipping", "skip_experts"


class Rule(Protocol):
    """What every kind of rule can do."""

    def attach(self, model: nn.Module, undo: ExitStack, counts: Counter[str]) -> None:
        """Have `model` obey from now on, counting in `counts`; whatever is changed in it is given to `undo` at once."""
        ...

    def renumbered(self, blocks: Mapping[str, str | None]) -> Rule:
        """The rule after blocks went: `blocks` maps a block's old name to the new one, None if it is gone."""
        ...


@dataclass(frozen=True)
class Asked:
    """One rule of a config, and the name of its `kind`."""

    kind: str
    rule: Rule


def runtime_rules(config: Mapping[str, Any], where: str) -> list[Asked]:
    """The rules that a config's content asks for, in their order; none where it has no such key.

    `where` names the config in messages. Raises ModelError for a version or a kind of rule that this program does not
    know, and for rules that are not of the form that their kind has.
    """
    key, old = config.get(KEY), config.get(OLD_KEY)
    if old is not None:
        if key is not None:
            raise ModelError(f"{where}: has both {KEY} and {OLD_KEY}, which {KEY} replaces; remove {OLD_KEY}")
        return [_asked({"kind": OLD_KIND, **old} if isinstance(old, dict) else old, f"{where}: {OLD_KEY}")]
    if key is None or type(key) is int:  # by how much EnCodec narrows its residual branches is called so, too
        return []
    if not isinstance(key, dict) or not isinstance(key.get("rules"), list):
        raise ModelError(f"{where}: {KEY}: is {key!r}, not {{version, rules: […]}}; remove it to run without rules")
    if key.get("version") != VERSION:
        raise ModelError(
            f"{where}: {KEY}.version: is {key.get('version')!r}, this program reads {VERSION}; update compress "
            f"(pip install -U compress-models), or remove the key to run without rules"
        )
    return [_asked(given, f"{where}: {KEY}.rules.{number}") for number, given in enumerate(key["rules"])]


def written(given: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The key's value for rules `{kind, …}`. Raises ModelError when one is not of the form that its kind has."""
    value = {"version": VERSION, "rules": [dict(rule) for rule in given]}
    runtime_rules({KEY: value}, "config.json")
    return value


def moved(name: str, blocks: Mapping[str, str | None]) -> str | None:
    """A module's name after blocks went, None if it went with its block; for `Rule.renumbered`."""
    for old, new in blocks.items():
        if name == old or name.startswith(f"{old}."):
            return None if new is None else new + name.removeprefix(old)
    return name


def _asked(given: Any, where: str) -> Asked:
    if not isinstance(given, dict) or not isinstance(given.get("kind"), str):
        raise ModelError(f"{where}: is {given!r}, not {{kind, …}}; remove it to run without")
    kind, fields = given["kind"], {key: value for key, value in given.items() if key != "kind"}
    try:
        return Asked(kind, rules.get(kind).bind(fields)())
    except InputError as error:
        raise ModelError(
            f"{where}: {error}; update compress (pip install -U compress-models), or remove the rule to run without"
        ) from None
