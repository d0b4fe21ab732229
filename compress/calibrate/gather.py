"""Gathering: sites watch the model, add what they see to sums, and statistics follow as soon as a block is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, nn

from compress.calibrate.distributed import add_up
from compress.calibrate.site import Site
from compress.calibrate.totals import Totals
from compress.errors import ModelError
from compress.model.weights import Weights
from compress.registry import sites, statistics
from compress.stream.baton import TOKEN_WEIGHT, Call, Walk

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
        self.weights, self.sequences, self.units, self.waited = weights, sequences, units or {}, frozenset(waited)
        self.totals: dict[str, Totals] = {}
        self.paused = False
        self._model, self._done = model, done
        self._wanted: dict[str, set[str]] = defaultdict(set)  # key → statistics
        self._sums: dict[str, set[str]] = defaultdict(set)  # key → sums
        self._site_of: dict[str, Site] = {}
        self._turn: Walk | None = None
        self._undo: list[Callable[[], None]] = []
        self._shared: dict[int, Tensor] = {}  # Gram matrices that several weights share and that are added up already
        places: dict[str, set[str]] = defaultdict(set)
        for name, keys in wanted.items():
            meta = statistics.get(name).meta
            for key in keys:
                if sites.get(meta.at).meta.names_tensors and weights.disk_name(key) is None:
                    raise ModelError(f"{key}: the model has no tensor of this name to gather {name} at")
                self._wanted[key].add(name)
                self._sums[key].update(meta.sums)
                places[meta.at].add(key)
        self.sites: dict[str, Site] = {name: sites.get(name).target(self, keys) for name, keys in places.items()}
        for site in self.sites.values():
            self._site_of |= dict.fromkeys(site.wanted, site)
        backward = [site for name, site in self.sites.items() if sites.get(name).meta.backward]
        self.gradients: set[str] = {key for site in backward for key in site.wanted}

    def __enter__(self) -> Gather:
        try:
            for site in self.sites.values():
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
            for site in self.sites.values():
                site.visit(block, call, output)

    def together(self, key: str, module: nn.Module, given: list[tuple[Tensor, Walk]]) -> None:
        """All batches wait at the projection `key`, which is given these."""
        self._site_of[key].together(key, module, given)

    def gradient(self, key: str, gradient: Tensor, walk: Walk) -> None:
        """The gradient of the mean loss of a batch; where squares are summed, of one sample, it is the whole one."""
        self._site_of[key].gradient(key, gradient, walk)

    def leave(self, *keys: str) -> None:
        """Nothing will be added to these any more: hand out their statistics."""
        for key in sorted(key for key in keys if key in self._wanted):
            totals = self.totals.pop(key, None) or self._site_of[key].untouched(key)
            if totals is None:
                raise ModelError(f"{key}: the model's forward does not use it, so nothing can be gathered there")
            self.hand_out(key, self.values(key, totals, self._shared))
        self._shared.clear()

    def pause(self, stopped: bool) -> None:
        """Gather nothing for a while."""
        self.paused = stopped

    def turn(self, walk: Walk) -> None:
        """What is seen from now on is this batch's."""
        self._turn = walk

    @property
    def left(self) -> list[str]:
        """Keys whose statistics have not been handed out."""
        return sorted(self._wanted)

    # What sites need.

    def of(self, key: str) -> Totals:
        """The sums at a key. Raises ModelError where they have been handed out."""
        self.check(key)
        return self.totals.setdefault(key, Totals(self.sequences))

    def check(self, key: str) -> None:
        """Raise ModelError where a key's sums have been handed out."""
        if key not in self._wanted:
            raise ModelError(f"{key}: its block runs again after it was left; please report this architecture")

    def sums(self, key: str) -> frozenset[str]:
        """Names of the sums that are wanted at a key."""
        return frozenset(self._sums[key])

    def statistics(self, key: str) -> frozenset[str]:
        """Names of the statistics that are wanted at a key."""
        return frozenset(self._wanted[key])

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

    def values(self, key: str, totals: Totals, shared: dict[int, Tensor]) -> dict[str, Tensor]:
        """The statistics wanted of a key, once all batches' sums are in `totals`; `shared` as `add_up` has it."""
        self._site_of[key].complete(totals)
        add_up(totals, shared)
        if isinstance(totals.tokens, Tensor):
            totals.tokens = totals.tokens.clamp_min(1)  # an expert that no token visited has sums of zero
        return {name: statistics.get(name).target(totals).float().cpu() for name in self._wanted[key]}

    def hand_out(self, key: str, values: Mapping[str, Tensor]) -> None:
        """These are the statistics of a key."""
        for name in sorted(self._wanted.pop(key)):
            self._done(name, key, values[name])
