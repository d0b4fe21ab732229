"""What went where: for each stage of a call, the tokens that stayed and into which the others were merged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.runtime.tokens.merged import Merged
from compress.runtime.tokens.patches import coloured
from compress.runtime.tokens.places.kind import Seen, core_of
from compress.runtime.tokens.turn import Group, Turn

GONE = -1


@dataclass(frozen=True, eq=False)
class After:
    """After the stage `stage` (its number in the rule), before the decoder's `layer`: for each column of the prompts
    `into`, long `[batch, length]`, is the column that holds it now: its own where it stayed, another where it was
    merged (the one that it counts most in), -1 where it is gone."""

    stage: int
    layer: int
    into: Tensor

    def of(self, group: Group) -> Tensor:
        """The columns that hold the tokens of a picture's grid, long `[n]`."""
        return self.into[group.row, group.columns]

    @property
    def stays(self) -> Tensor:
        """Which columns the decoder still has, bool `[batch, length]`."""
        return self.into == torch.arange(self.into.shape[1], device=self.into.device)


@dataclass(frozen=True, eq=False)
class Trace:
    """One call with pictures. `groups` are the grids of its pictures, `visual` says which columns of the prompts are
    visual tokens and `valid` which are no padding, bool `[batch, length]`; `stages` in their order."""

    groups: list[Group]
    visual: Tensor
    valid: Tensor
    seen: Seen
    stages: list[After] = field(default_factory=list)

    def picture(self, group: Group) -> Tensor | None:
        """What the tower saw of a grid, float32 `[height, width, channels]`, each channel from 0 to 1; None where it is
        not known which patches make which token."""
        if group.shape is None or group.units is None or self.seen.hidden is None:
            return None
        return coloured(self.seen, group.units, group.prefix, group.shape)

    def lengths(self, layers: int) -> Tensor:
        """Tokens that each of the decoder's `layers` reads, without padding, long `[layers, batch]`."""
        found, alive = [], self.valid
        for layer in range(layers):
            for after in self.stages:
                if after.layer == layer:
                    alive = self.valid & after.stays
            found.append(alive.sum(1))
        return torch.stack(found)


class Record:
    """The trace of a call that is under way."""

    def __init__(self, turn: Turn) -> None:
        self.trace = Trace(turn.groups, turn.visual, turn.valid, replace(turn.seen, attention={}))
        self._into = torch.arange(turn.length, device=turn.visual.device).expand(turn.visual.shape).clone()
        self._began = self._into.clone()

    def went(self, row: int, columns: Tensor, merged: Merged) -> None:
        """Tokens at `columns` `[n]` of a row were made into others."""
        kept, map_ = columns[merged.kept], torch.arange(self._into.shape[1], device=columns.device)
        map_[columns] = GONE
        if merged.weights is not None:
            most, place = merged.weights.max(0)
            map_[columns] = kept[place].masked_fill(most <= 0, GONE)
        map_[kept] = kept
        held = self._into[row]
        self._into[row] = map_[held.clamp_min(0)].masked_fill(held < 0, GONE)

    def restored(self) -> None:
        """Those that left inside of the decoder came back."""
        self._into = self._began.clone()

    def end(self, stage: int, layer: int) -> None:
        """The stage is over."""
        if layer == 0:
            self._began = self._into.clone()
        self.trace.stages.append(After(stage, layer, self._into.clone()))


_WANTED: WeakKeyDictionary[nn.Module, list[list[Trace]]] = WeakKeyDictionary()
"""The part of a model that calls tower and decoder → the lists that its calls are put into."""


@contextmanager
def traced(model: nn.Module) -> Iterator[list[Trace]]:
    """A list that gets the trace of every call with pictures of a model that obeys a rule about visual tokens.

        with compress.runtime.traced(model) as traces:
            model.generate(…)
        traces[-1].stages[0].of(traces[-1].groups[0])

    Raises ModelError for a model without pictures.
    """
    core = core_of(model)
    if core is None:
        raise ModelError(f"{type(model).__name__} has no pictures whose tokens could be followed")
    traces: list[Trace] = []
    lists = _WANTED.setdefault(core, [])
    lists.append(traces)
    try:
        yield traces
    finally:
        lists[:] = [one for one in lists if one is not traces]


def wanted(core: nn.Module) -> bool:
    """Whether anyone asked for traces of a model."""
    return bool(_WANTED.get(core))


def tell(core: nn.Module, trace: Trace) -> None:
    """Give a trace to whoever asked for it."""
    for traces in _WANTED.get(core, ()):
        traces.append(trace)
