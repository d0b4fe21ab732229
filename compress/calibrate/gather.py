"""Gathering: sites watch the model and add what they see to sums; statistics follow as soon as a block is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, nn

from compress.calibrate.site import Site
from compress.errors import ModelError
from compress.inputs.batch import TOKEN_WEIGHT
from compress.inputs.choose import inputs_of
from compress.model.weights import Weights
from compress.registry import sites, statistics
from compress.stream.baton import Call, Walk

Done = Callable[[str, str, Tensor], None]


class Gather:
    """Sums for `wanted` (statistic → keys) over `sequences` samples in all processes.

    `units` gives, for weights whose `projection` is wanted, the input positions of each unit. `done(statistic, key,
    value)` is called with float32 tensors on the CPU once a block has been left. As a context it attaches its sites;
    `waited` are the modules that they leave alone, as all batches wait at them and `together` is called.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Weights,
        wanted: Mapping[str, set[str]],
        sequences: int,
        done: Done,
        units: Mapping[str, list[Tensor]] | None = None,
        waited: Collection[str] = (),
    ) -> None:
        self.weights, self.sequences, self.done = weights, sequences, done
        self.units: Mapping[str, list[Tensor]] = units or {}
        self.waited = frozenset(waited)
        self.inputs = inputs_of(model)
        self.paused = False
        self._model = model
        self._turn: Walk | None = None
        self._undo: list[Callable[[], None]] = []
        places: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))  # site → key → statistics
        for name, keys in wanted.items():
            at = statistics.get(name).meta.at
            for key in keys:
                if sites.get(at).meta.names_tensors and weights.disk_name(key) is None:
                    raise ModelError(f"{key}: the model has no tensor of this name to gather {name} at")
                places[at][key].add(name)
        self._sites: dict[str, Site] = {
            at: sites.get(at).target(self, {key: frozenset(names) for key, names in places[at].items()})
            for at in sorted(places)
        }
        self._backward = [site for at, site in self._sites.items() if sites.get(at).meta.backward]
        self._waiting = [site for at, site in self._sites.items() if sites.get(at).meta.waits]
        self.gradients: set[str] = {key for site in self._backward for key in site.places}

    def __enter__(self) -> Gather:
        try:
            for site in self._sites.values():
                self._undo.extend(site.attach(self._model))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._undo:
            self._undo.pop()()

    def visit(self, block: str, call: Call, output: Any) -> None:
        """One batch went through a block."""
        if not self.paused:
            for site in self._sites.values():
                site.visit(block, call, output)

    def together(self, key: str, module: nn.Module, given: list[tuple[Tensor, Walk]]) -> None:
        """All batches wait at the projection `key`, which is given these."""
        for site in self._waiting:
            if key in site.places:
                site.together(key, module, given)

    def gradient(self, key: str, gradient: Tensor, walk: Walk) -> None:
        """The gradient of the mean loss of a batch; where squares are summed, of one sample, it is the whole one."""
        for site in self._backward:
            if key in site.places:
                site.gradient(key, gradient, walk)

    def finalize(self, *keys: str) -> None:
        """Nothing will be added to these any more: hand out their statistics."""
        shared: dict[int, Tensor] = {}  # Gram matrices that several weights share and that are added up already
        for key in sorted(keys):
            for site in self._sites.values():
                if key in site.wanted:
                    site.leave(key, shared)

    def pause(self, stopped: bool) -> None:
        """Gather nothing for a while."""
        self.paused = stopped

    def turn(self, walk: Walk) -> None:
        """What is seen from now on is this batch's."""
        self._turn = walk

    @property
    def pending(self) -> list[str]:
        """Keys whose statistics have not been handed out."""
        return sorted({key for site in self._sites.values() for key in site.wanted})

    def token_weight(self, key: str, count: int, walk: Walk | None = None) -> Tensor | None:
        """How much each of the `count` tokens of a batch counts, `[count]`; None where all count the same.

        Of the batch of `walk`, by default of the one whose turn it is. Raises ModelError where what `key` is given are
        not the batch's tokens one by one.
        """
        walk = walk or self._turn
        weight = walk.batch.get(TOKEN_WEIGHT) if walk is not None else None
        if weight is None:
            return None
        if weight.numel() != count:
            raise ModelError(
                f"{key}: is given {count} rows, not one for each of the batch's {weight.numel()} tokens, so token "
                "weights mean nothing there; gather its statistics without them"
            )
        return weight.reshape(-1).float()
