"""What a kind of models says of itself: which there are, and which functions examine one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Say = Callable[..., None]
"""`say(column=value, …)`: what was found, column by column, as soon as it is known."""


@dataclass(frozen=True)
class Entry:
    """One model: its `group` in the table, its class, and `marks` (`moe`, `onnx`: to be exported too)."""

    kind: str
    name: str
    group: str
    cls: str = ""
    marks: tuple[str, ...] = ()

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Entry:
        """Back from JSON."""
        return cls(**{**data, "marks": tuple(data["marks"])})

    def data(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Stage:
    """`function`, `module:name`, is called with (entry, folder, say) in a process of its own that has imported its
    module and `imports`. `python`: in place of this one, the interpreter of another environment."""

    function: str
    imports: tuple[str, ...] = ()
    python: str | None = None


@dataclass(frozen=True)
class Kind:
    """`columns` in the order in which they are reached: a model fails at the first that is not true. Of those in
    `marked` only the models that bear the mark are asked. The model `rehearsal` is examined first, for what that
    imports. `needs`: packages without which none of them can be examined."""

    name: str
    entries: Callable[[], list[Entry]]
    stages: tuple[Stage, ...]
    columns: tuple[str, ...]
    rehearsal: str
    marked: tuple[str, ...] = ()
    peer: Stage | None = None
    needs: tuple[str, ...] = ()

    def asked(self, entry: Entry) -> list[str]:
        """The columns of this model."""
        return [name for name in self.columns if name not in self.marked or name in entry.marks]


def kinds() -> dict[str, Kind]:
    """Every file in `matrix/kinds`."""
    from matrix import kinds as folder

    found = [
        importlib.import_module(f"matrix.kinds.{info.name}").KIND for info in pkgutil.iter_modules(folder.__path__)
    ]
    return {kind.name: kind for kind in found}
