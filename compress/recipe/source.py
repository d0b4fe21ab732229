"""YAML 1.2 with the place of every node. (YAML 1.1 reads `2:4` as 124, `1e-4` as a string and `no` as false.)"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from compress.errors import InputError

Place = tuple[int | str, ...]

LONGEST = 1_000_000
"""Characters of a recipe."""

DEEPEST = 100
"""Brackets and braces inside each other."""


class Source:
    """A YAML text: `data` is what it says, plain dicts and lists; `locate` says where. Raises InputError."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        _check_extent(text, name)
        try:
            self.data: Any = _yaml().load(text)
            self._root: Node | None = _yaml().compose(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
            problem = " ".join((error.problem or error.context or "not YAML").split())
            raise InputError(f"{where}: {problem}") from None
        except (YAMLError, ValueError, RecursionError) as error:
            raise InputError(f"{name}: not readable as YAML: {' '.join(str(error).split())}") from None

    def locate(self, place: Sequence[int | str], *, key: bool = False) -> tuple[int, int]:
        """Line and column, from 1, of the value at `place` (or of its key when `key`).

        The value of a place that does not exist is its nearest existing parent.
        """
        node: Any = self._root
        found = node
        for step in place:
            if isinstance(node, MappingNode):
                pairs = [pair for pair in node.value if isinstance(pair[0], ScalarNode) and pair[0].value == str(step)]
                if not pairs:
                    break
                named, node = pairs[-1]
                found = named if key else node
            elif isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
                found = node = node.value[step]
            else:
                break
        if found is None:
            return 1, 1
        return found.start_mark.line + 1, found.start_mark.column + 1


def _check_extent(text: str, name: str) -> None:
    """Raise InputError for what would keep the parser busy for long, and is no recipe."""
    if len(text) > LONGEST:
        raise InputError(f"{name}: {len(text):,} characters long, so no recipe (the longest has {LONGEST:,})")
    depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        for character in line:
            depth += (character in "[{") - (character in "]}")
            if depth > DEEPEST:
                raise InputError(f"{name}:{number}: lists and mappings are nested more than {DEEPEST} deep; mend that")


def value_of(text: str) -> Any:
    """One YAML value, as written behind `--set KEY=`. Raises InputError."""
    return Source(text, "the value").data


def to_yaml(data: Any) -> str:
    """`data` as YAML in the order given, the innermost lists and mappings on one line."""
    yaml = _yaml()
    yaml.default_flow_style = None
    yaml.width = 120
    yaml.representer.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    out = StringIO()
    yaml.dump(data, out)
    return out.getvalue()


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)
