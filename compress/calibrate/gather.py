"""Gathering: hooks on the modules that own the asked weights, sums, and statistics as soon as a block is done."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.calibrate.distributed import add_up
from compress.calibrate.expert_totals import add_moments, add_visits
from compress.calibrate.experts import Tell, Visit, watch
from compress.calibrate.totals import Totals, add_gram, cosines, double, mirror, moments, projection
from compress.errors import ModelError
from compress.inputs.choose import inputs_of
from compress.model.weights import Weights
from compress.registry import statistics
from compress.stream.baton import Call, Walk

Done = Callable[[str, str, Tensor], None]


class Gather:
    """Sums for `wanted` (statistic → keys) over `sequences` samples in all processes.

    `units` gives, for weights whose `projection` is wanted, the input positions of each unit. `done(statistic, key,
    value)` is called with float32 tensors on the CPU once a block has been left. As a context it installs its hooks;
    `waited` are the modules that get none, as all batches wait at them and `together` is called.
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
        self._model, self._weights, self._done, self._units = model, weights, done, units or {}
        self._sequences, self._waited = sequences, frozenset(waited)
        self._inputs = inputs_of(model)
        self._wanted: dict[str, set[str]] = defaultdict(set)  # key → statistics
        self._sums: dict[str, set[str]] = defaultdict(set)  # key → sums
        self.totals: dict[str, Totals] = {}
        self.gradients: set[str] = set()
        self.blocks: set[str] = set()
        self.inputs: set[str] = set()
        self.experts: set[str] = set()
        self.routers: set[str] = set()
        sites = {
            "gradient": self.gradients,
            "block": self.blocks,
            "input": self.inputs,
            "experts": self.experts,
            "router": self.routers,
        }
        for name, keys in wanted.items():
            entry = statistics.get(name)
            for key in keys:
                if entry.meta["at"] not in ("block", "experts") and weights.disk_name(key) is None:
                    raise ModelError(f"{key}: the model has no tensor of this name to gather {name} at")
                self._wanted[key].add(name)
                self._sums[key].update(entry.meta["sums"])
                sites[entry.meta["at"]].add(key)
        self._undo: list[Callable[[], None]] = []
        self._seen: tuple[Any, dict[str, Tensor]] = (lambda: None, {})
        self._multiplied: tuple[Any, str] = (lambda: None, "")
        self._shared: dict[int, Tensor] = {}  # Gram matrices that several weights share and that are added up already
        self._former: tuple[list[Any], dict[str, Tensor]] = ([], {})  # what was given last, and what came of it
        self._paused = False

    def __enter__(self) -> Gather:
        stacked = {key for key in self.inputs if len(self._weights.current(key).shape) == 3}
        for key in self.inputs - stacked:
            if key.rpartition(".")[0] in self._waited:
                continue
            owner = _owner(self._model, self._weights, key)
            self._undo.append(owner.register_forward_pre_hook(self._hook(key), with_kwargs=True).remove)
        for key in self.routers:
            router = self._model.get_submodule(key.rpartition(".")[0])
            self._undo.append(router.register_forward_pre_hook(self._router_hook(key, router)).remove)
        for module in self.experts | {key.rpartition(".")[0] for key in stacked}:
            self._undo.append(watch(self._model.get_submodule(module), self._tell(module, stacked)))
        return self

    def __exit__(self, *_: object) -> None:
        while self._undo:
            self._undo.pop()()

    def visit(self, block: str, call: Call, output: Any) -> None:
        """One batch went through a block."""
        if block not in self.blocks or self._paused:
            return
        before, after = _hidden((call.args, call.kwargs.get("hidden_states"), call.kwargs)), _hidden(output)
        totals = self._of(block)
        totals.tokens += before.shape[:-1].numel()
        for name, value in cosines(before, after).items():
            if name in self._sums[block]:
                totals.add(name, value)

    def together(self, key: str, module: nn.Module, given: list[Tensor]) -> None:
        """All batches wait at the projection `key`, which is `given` these.

        Where they are the very tensors that the projection before was given (k after q), its sums hold here too.
        """
        self._check(key)
        if not self._same(key, given):
            self._former = [], {}  # freed before the next ones grow
            totals = Totals(self._sequences)
            for x in given:
                self._add(key, totals, module, x)
            self._former = [weakref.ref(x) for x in given], self._values(key, totals, {})
        self._hand_out(key, self._former[1])

    def _same(self, key: str, given: list[Tensor]) -> bool:
        """Whether what is wanted of `key` is known of the projection before; `projection` is of one weight alone."""
        seen, values = self._former
        known = self._wanted[key] <= values.keys() and "projection" not in self._sums[key]
        return known and len(seen) == len(given) and all(last() is x for last, x in zip(seen, given, strict=True))

    def gradient(self, key: str, gradient: Tensor, walk: Walk) -> None:
        """The gradient of the mean loss of a batch; for the fisher, of one sample, it is the whole one."""
        totals = self._of(key)
        if "gradient" in self._sums[key]:
            totals.add("gradient", gradient.float() * walk.rows)
        if "fisher" in self._sums[key] and walk.rows == 1:
            totals.tokens += walk.rows * self._inputs.length(walk.batch)
            totals.add("fisher", gradient.float().square())

    def leave(self, *keys: str) -> None:
        """Nothing will be added to these any more: hand out their statistics."""
        for key in sorted(key for key in keys if key in self._wanted):
            totals = self.totals.pop(key, None)
            if totals is None and key in self.gradients:
                totals = self._untouched(key)
            if totals is None:
                raise ModelError(f"{key}: the model's forward does not use it, so nothing can be gathered there")
            self._hand_out(key, self._values(key, totals, self._shared))
        self._shared.clear()

    def _values(self, key: str, totals: Totals, shared: dict[int, Tensor]) -> dict[str, Tensor]:
        """The statistics wanted of a key, once all batches' sums are in `totals`; `shared` as `add_up` has it."""
        if "gram" in totals.sums:
            mirror(totals["gram"])
        add_up(totals, shared)
        if isinstance(totals.tokens, Tensor):
            totals.tokens = totals.tokens.clamp_min(1)  # an expert that no token visited has sums of zero
        return {name: statistics.get(name).target(totals).float().cpu() for name in self._wanted[key]}

    def _hand_out(self, key: str, values: Mapping[str, Tensor]) -> None:
        for name in sorted(self._wanted.pop(key)):
            self._done(name, key, values[name])

    def pause(self, stopped: bool) -> None:
        """Gather nothing for a while."""
        self._paused = stopped

    @property
    def left(self) -> list[str]:
        """Keys whose statistics have not been handed out."""
        return sorted(self._wanted)

    def _untouched(self, key: str) -> Totals:
        """Gradients of what the loss does not depend on (a pooler behind the hidden states) are zero."""
        shape = self._weights.current(key).shape
        return Totals(self._sequences, 0, {name: torch.zeros(shape) for name in ("gradient", "fisher")})

    def _check(self, key: str) -> None:
        if key not in self._wanted:
            raise ModelError(f"{key}: its block runs again after it was left; please report this architecture")

    def _of(self, key: str) -> Totals:
        self._check(key)
        return self.totals.setdefault(key, Totals(self._sequences))

    def _hook(self, key: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self._paused:
                self._add(key, self._of(key), module, args[0] if args else next(iter(kwargs.values())))

        return hook

    @torch.no_grad()
    def _add(self, key: str, totals: Totals, module: nn.Module, given: Tensor) -> None:
        """Add what one batch gives a projection (tokens, to an embedding) to its sums."""
        names = frozenset(self._sums[key])
        if isinstance(module, nn.Embedding):
            totals.tokens += given.numel()
            counts = torch.bincount(given.flatten(), minlength=module.num_embeddings).double()
            found = dict.fromkeys(names & {"sum", "square", "absolute"}, counts)
        else:
            x = given.detach().reshape(-1, given.shape[-1])
            totals.tokens += len(x)
            found = self._moments(given, x, names)
            if "gram" in names:
                self._gram(key, totals, given, x)
            if "projection" in names:
                found["projection"] = projection(x, _matrix(module), self._units[key])
        for name, value in found.items():
            totals.add(name, value)

    def _gram(self, key: str, totals: Totals, given: Tensor, x: Tensor) -> None:
        """Adds xᵀx; weights that are given the very same tensor (q, k and v) share one sum."""
        last, first = self._multiplied
        if last() is given and first != key and first in self.totals:
            known = self.totals[first].sums["gram"]
            if totals.sums.setdefault("gram", known) is known:
                return
        else:
            self._multiplied = (weakref.ref(given), key)
        if "gram" not in totals.sums:
            totals.sums["gram"] = torch.zeros(x.shape[1], x.shape[1], device=x.device)
        add_gram(totals["gram"], x)

    def _router_hook(self, key: str, router: nn.Module) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not self._paused:
                totals, x = self._of(key), args[0].reshape(-1, args[0].shape[-1]).float()
                logits = nn.functional.linear(x, router.weight.float(), getattr(router, "bias", None))  # pyright: ignore
                totals.tokens += len(x)
                totals.add("logits", double(logits.T @ logits))

        return hook

    def _tell(self, name: str, stacked: set[str]) -> Tell:
        """Adds up what the experts of one module do, and moments of what each stacked projection is given."""
        inside = [key for key in stacked if key.rpartition(".")[0] == name]

        def tell(module: nn.Module, chosen: Tensor, weights: Tensor, visits: list[Visit]) -> None:
            if self._paused:
                return
            if name in self.experts:
                add_visits(self._of(name), chosen, weights, visits, module.down_proj.shape[0])  # pyright: ignore
            for key in inside:
                down = key.endswith("down_proj")
                add_moments(self._of(key), self._sums[key], visits, down, self._weights.current(key).shape[0])

        return tell

    def _moments(self, given: Tensor, x: Tensor, names: frozenset[str]) -> dict[str, Tensor]:
        """Moments of x, those of the tensor seen last again: q, k and v are given the same one."""
        names = names & {"sum", "square", "absolute"}
        last, found = self._seen
        if last() is not given or not names <= found.keys():
            found = moments(x, names) if names else {}
            self._seen = (weakref.ref(given), found)
        return {name: found[name] for name in names}


def _matrix(module: nn.Module) -> Tensor:
    """The weight as `[out, in]`."""
    weight: Tensor = module.weight  # pyright: ignore[reportAssignmentType]
    return weight if isinstance(module, nn.Linear) else weight.T


def _owner(model: nn.Module, weights: Weights, key: str) -> nn.Module:
    """The projection that multiplies by the weight `key`; where there is none, the embedding that looks up in it."""
    from transformers.pytorch_utils import Conv1D

    owners = [model.get_submodule(name.rpartition(".")[0]) for name in weights.aliases(key) if name.endswith("weight")]
    for kinds in ((nn.Linear, Conv1D), (nn.Embedding,)):
        for owner in owners:
            if isinstance(owner, kinds):
                return owner
    raise ModelError(f"{key}: is no weight of a plain projection, so statistics of its input are not gathered")


def _hidden(values: Any) -> Tensor:
    """The residual stream among a block's inputs or outputs: the first floating tensor with a hidden dimension."""
    for value in tree_leaves(values):
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2:
            return value
    raise ModelError("a block takes or gives no hidden states, so they cannot be compared")
