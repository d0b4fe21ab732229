"""Zeroing single weights: one block in memory at a time, each handed on as soon as it is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from torch import Tensor, nn

from compress.calibrate.collect import collect
from compress.calibrate.site import at_sites
from compress.checkpoint.code import OUR_TYPE
from compress.console import track
from compress.errors import BudgetError
from compress.execution.context import Context, Needs
from compress.model.model import Model
from compress.output_format.find import find_output_format
from compress.recipe.weights import PruneWeights
from compress.registry import criteria, ratios, steps
from compress.score.score import statistics_of
from compress.score.views import Stats
from compress.sparse.losses import WholeModel
from compress.sparse.matrices import Matrices, find_matrices, shapes
from compress.sparse.zero import Zeroing
from compress.steps.kind import Decision, ModelStep
from compress.surgery.claims.zeros import ZerosAsDecided, slack_of
from compress.surgery.edit import Edit, Put, unchanged_specs


@steps.add("prune-weights")
class ZeroWeights(ModelStep):
    """Zero single weights of the projections inside blocks."""

    settings, verb, subjects = PruneWeights, "prune", ("weights",)
    writing = "zero"
    unforeseen = "its layer ratio reads weights or text; `allocate: uniform` and `allocate: erk` do not"
    step: PruneWeights

    def needs(self, context: Context) -> Needs:
        """What the layer ratio reads, and of the criterion's statistics those that are the dense model's."""
        return self._at([*self._of_ratio(), *self._of_dense()], find_matrices(context.source.graph, self.step))

    def calibrates(self, *, given: bool) -> bool:
        """The criterion's own calibration comes with the zeroing, as later blocks see what the earlier ones give."""
        return not given and bool(self._of_ratio())

    def gather(self, context: Context, given: Decision | None) -> Stats:
        if given is not None:
            return {}
        return context.collect(self._at(self._of_ratio(), find_matrices(context.source.graph, self.step)))

    def decide(self, context: Context, gathered: Stats) -> dict[str, Any]:
        """`sparsity`: tensor → the share of its weights that becomes zero."""
        source, step, inputs = context.source, self.step, find_matrices(context.source.graph, self.step)
        zeroing = Zeroing(source.graph, step, inputs, context.recipe.seed)

        def measure(count: int) -> WholeModel:
            return WholeModel(source.checkpoint, context.batches[:count], context.device)

        def score(name: str) -> Tensor:
            return zeroing.saliency(name, source.weights.read(name), gathered)

        matrices = Matrices(source.graph, inputs, source.weights.read, gathered, measure, score)
        found = step.allocate.bind(ratios)(matrices, _share(context, step, matrices.total))
        return {"sparsity": {name: float(value) for name, value in found.items()}}

    def edit(self, context: Context, decision: Decision, gathered: Stats) -> Edit:
        source, step = context.source, self.step
        inputs, shares = find_matrices(source.graph, step), decision["sparsity"]
        zeroing = Zeroing(source.graph, step, inputs, context.recipe.seed)
        sizes = {name: prod(layout.size for layout in source.graph.layouts[name]) for name in inputs}
        slack = {name: slack_of(shape, step.tile) for name, shape in shapes(source.graph, inputs).items()}

        def produce(put: Put) -> None:
            weights = source.weights

            def zeroed(name: str, tensor: Tensor) -> None:
                for piece in weights.pieces(name):
                    put(piece.disk, piece.of(tensor))
                if not weights.pieces(name):
                    for disk in weights.disk_names(name):
                        put(disk, tensor)

            self._zero(context, zeroing, shares, zeroed)
            for name in weights.names(""):
                for disk in weights.disk_names(name) if name not in inputs else ():
                    put(disk, weights.read_stored(disk))

        return Edit(
            unchanged_specs(source),
            produce,
            source.checkpoint.config,
            ZerosAsDecided(shares, slack, zeroing.updates),
            _opens_as_before(source),
            zeros=round(sum(shares[name] * sizes[name] for name in inputs)),
            collective=bool(zeroing.needs),
        )

    @staticmethod
    def rows(decision: Decision) -> dict[str, str]:
        """From what share on to what share of a matrix becomes zero."""
        least, most = min(decision["sparsity"].values()), max(decision["sparsity"].values())
        return {"zeros in a matrix": f"{least:.1%}" if least == most else f"{least:.1%} to {most:.1%}"}

    def _of_ratio(self) -> list[str]:
        """Statistics that the layer ratio reads."""
        step, ratio = self.step, ratios.get(self.step.allocate.name)
        scored = statistics_of(criteria.get(step.by.name), step.by.arguments) if ratio.meta.scores else ()
        return [*statistics_of(ratio, step.allocate.arguments), *scored]

    def _of_dense(self) -> list[str]:
        """Of the criterion's statistics those that are the dense model's: all, or gradients alone, also where
        activations are those of the pruned blocks (as GBLM's code has it)."""
        found = statistics_of(criteria.get(self.step.by.name), self.step.by.arguments)
        dense = self.step.propagate == "dense"
        return list(found) if dense else at_sites(found, backward=True)

    @staticmethod
    def _at(names: Iterable[str], inputs: Mapping[str, int]) -> Needs:
        return Needs({name: set(inputs) for name in names})

    def _zero(self, context: Context, zeroing: Zeroing, shares: Mapping[str, float], put: Put) -> None:
        """Hand every zeroed tensor to `put(name, tensor)`, as stored. Every process must call it."""
        source, inputs = context.source, zeroing.inputs
        dense = context.collect(self._at(self._of_dense(), inputs))
        forward = {name: set(inputs) for name in zeroing.needs if name not in self._of_dense()}
        if not forward:
            for name in track(list(inputs), "zeroing"):
                put(name, zeroing(name, source.weights.read(name), shares[name], dense))
            return

        def change(where: str, module: nn.Module, stats: Stats) -> None:
            both = {**dense, **stats}
            names = [name for name in inputs if name.startswith(where + ".")]
            for name in names:
                parent, _, own = name[len(where) + 1 :].rpartition(".")
                loaded: Tensor = getattr(module.get_submodule(parent), own).detach()
                as_stored = loaded.dtype == source.weights.dtype(name) and loaded.device.type == "cpu"
                tensor = zeroing(name, loaded if as_stored else source.weights.read(name), shares[name], both)
                put(name, tensor)
                if tensor is not loaded:
                    loaded.copy_(tensor)
            stats.drop(names)  # pyright: ignore[reportAttributeAccessIssue] - so that memory stays one block's

        inside = self.step.propagate == "true_sequential"
        rows, device = context.batches, context.device
        collect(source.checkpoint, source.graph, forward, rows, change=change, inside=inside, device=device)


def _share(context: Context, step: PruneWeights, total: int) -> float:
    """The share of the `total` weights that goes. Raises BudgetError where `until` asks for more than there is, or
    nothing."""
    if step.zeros_of is not None:
        return step.zeros_of[0] / step.zeros_of[1]
    if step.remove is not None:
        return step.remove
    assert step.until is not None
    whole = context.original.params
    gone = whole - context.source.graph.parameters()
    share, most = (step.until * whole - gone) / total, (gone + total) / whole
    if not 0 < share < 1:
        why = f"{gone / whole:.1%} is gone already" if share <= 0 else f"at most {most:.1%} can go"
        raise BudgetError(f"until: {step.until:.1%} of the original model: {why}")
    return share


def _opens_as_before(source: Model) -> dict[str, Any]:
    if source.checkpoint.config.get("model_type") == OUR_TYPE or source.checkpoint.architecture is not None:
        return find_output_format(source, {}).described
    name = source.cls.__name__
    loads = f"transformers.{name}" if hasattr(source.module, "get_output_embeddings") and "For" in name else ""
    return {
        "transformers": True,
        "remote_code": False,
        "who": f"whatever opens the input ({name}); zeros are stored as such",
        "how": f"{loads or 'transformers.AutoModel'}.from_pretrained({{folder!r}})",
    }
