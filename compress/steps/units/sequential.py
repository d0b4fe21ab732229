"""Pruning block after block: each is scored on what the already pruned ones before it give (`propagate: pruned`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from compress.allocate.pools import ranking
from compress.allocate.spend import allocate
from compress.calibrate.collect import Stats, collect
from compress.errors import InputError
from compress.graph.families import Family
from compress.inputs.batch import Batch
from compress.model.source import Source
from compress.output_format.find import bias_name, repaired
from compress.recipe.prune import Prune
from compress.registry import allocators, criteria, statistics
from compress.score.score import score, statistics_of
from compress.surgery.cut import Mend


def check(step: Prune, families: list[Family]) -> None:
    """Raises InputError where a step cannot be decided block by block."""
    if step.allocate.name != "uniform" or step.budget.verb != "remove":
        raise InputError(
            "propagate: pruned decides a block before the next one is seen, so every block loses the same share: "
            "it goes with `remove:` and `allocate: uniform`; take `propagate: dense` with this budget"
        )
    if spread := next((f for f in families if f.layer is None), None):
        raise InputError(
            f"propagate: pruned decides block by block, and {spread.name} spans several; take `propagate: dense`"
        )
    needs = statistics_of(criteria.get(step.by.name), step.by.arguments)
    if any(statistics.get(name).meta["at"] == "gradient" for name in needs):
        raise InputError(f"propagate: pruned runs forwards only, and {step.by.name} needs gradients; take `dense`")


class Sequence:
    """Scores and masks one block at a time while calibration streams through the model.

    `kept` fills up with family name → bool `[size]`; `given` masks (of a plan) are taken instead of new choices.
    """

    def __init__(
        self,
        source: Source,
        step: Prune,
        families: list[Family],
        *,
        seed: int = 0,
        given: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        check(step, families)
        self.source, self.step, self.seed, self.given = source, step, seed, given
        self.families = families
        self.kept: dict[str, np.ndarray] = {}
        # How many stay does not depend on the scores, as every block loses the same share.
        flat = {family.name: np.zeros(family.size) for family in families}
        uniform = allocators.get(step.allocate.name)
        arguments = step.allocate.arguments
        masks = allocate(
            source.graph,
            families,
            flat,
            allocator=uniform,
            arguments=arguments,
            remove=step.budget.share,
            round=step.round,
            widths=step.widths,
        )
        self._counts = {name: int(mask.sum()) for name, mask in masks.items()}

    def collect(
        self,
        needs: Mapping[str, set[str]],
        batches: list[Batch],
        mend: Callable[[Stats], Mend | None],
        device: torch.device | str,
    ) -> Stats:
        """Run the calibration; each block is pruned, and mended, as soon as its own statistics are there.

        Returns them, for the cut. Raises what `calibrate.collect` raises.
        """

        def change(block: str, module: nn.Module, stats: Stats) -> None:
            chosen = self._choose(block, stats)
            self.kept |= chosen
            with torch.no_grad():
                self._prune(block, module, chosen, mend(stats))

        names = [family.name for family in self.families]
        return collect(
            self.source.checkpoint, self.source.graph, needs, batches, families=names, change=change, device=device
        )

    def _choose(self, block: str, stats: Stats) -> dict[str, np.ndarray]:
        place = self.source.graph.blocks.index(block)
        own = [family for family in self.families if family.layer == place]
        if self.given is not None:
            return {family.name: self.given[family.name] for family in own if family.name in self.given}
        scores = score(
            self.source.graph,
            own,
            criteria.get(self.step.by.name),
            stats,
            self.source.weights.read,
            arguments=self.step.by.arguments,
            reduce=self.step.reduce,
            seed=self.seed,
        )
        chosen = {}
        for name, values in scores.items():
            mask = np.zeros(len(values), bool)
            mask[ranking(self.source.graph.families[name], values)[: self._counts[name]]] = True
            if not mask.all():
                chosen[name] = mask
        return chosen

    def _prune(self, block: str, module: nn.Module, chosen: Mapping[str, np.ndarray], mend: Mend | None) -> None:
        """Zero what goes in the loaded block and mend what reads it, as the cut will."""
        graph = self.source.graph
        tensors = {member.tensor for name in chosen for member in graph.families[name].members}
        if mend is not None:
            for name, member in repaired(self.source, chosen).items():
                weight = self._inside(block, module, name)
                bias = self._inside(block, module, bias_name(name))
                keep = torch.from_numpy(graph.masks(name, chosen)[member.dim])
                turned = weight if member.dim == 1 else weight.T
                new, added = mend(name, turned.float().cpu(), None if bias is None else bias.float().cpu(), keep)
                weight.copy_(new if member.dim == 1 else new.T)
                if added is not None:
                    owner = module.get_submodule(name[len(block) + 1 :].rpartition(".")[0])
                    owner.register_parameter("bias", nn.Parameter(added.to(weight), requires_grad=False))
        for name in tensors:
            tensor = self._inside(block, module, name)
            assert tensor is not None
            for dim, mask in graph.masks(name, chosen).items():
                tensor.index_fill_(dim, torch.from_numpy(np.flatnonzero(~mask)).to(tensor.device), 0)

    def _inside(self, block: str, module: nn.Module, name: str) -> Tensor:
        parent, _, own = name[len(block) + 1 :].rpartition(".")
        return getattr(module.get_submodule(parent), own, None)  # pyright: ignore[reportReturnType]
