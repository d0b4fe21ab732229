"""Zeroing single weights: one block in memory at a time, each written as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.calibrate.collect import collect
from compress.checkpoint.code import OUR_TYPE
from compress.checkpoint.open import open_checkpoint
from compress.checkpoint.write import ShardWriter
from compress.console import track
from compress.errors import BudgetError, CompressError, VerifyError
from compress.execution.document import Step
from compress.execution.work import Work
from compress.model.source import Source
from compress.output_format.find import find_opening
from compress.recipe.weights import PruneWeights
from compress.registry import ratios, statistics
from compress.score.score import statistics_of
from compress.score.views import Stats
from compress.sparse.losses import WholeModel
from compress.sparse.matrices import Matrices, find_matrices
from compress.sparse.zero import Zeroing
from compress.steps.units.decide import calibration
from compress.surgery.cut import write_model_files

Put = Callable[[str, Tensor], None]


def execute(work: Work, step: PruneWeights, given: Step | None, folder: Path | None) -> Step:
    """Decide every matrix's share, or take what a plan has `given`; with a folder write the sparse model there."""
    source = work.source
    inputs = find_matrices(source.graph, step)
    with work.timed("decide"):
        shares = given.sparsity if given is not None else _shares(work, step, inputs)
    size = work.size(source.graph, source.checkpoint.bytes)
    name = source.cls.__name__
    opens = {
        "transformers": True,
        "remote_code": False,
        "who": f"whatever opens the input ({name}); zeros are stored as such",
        "how": "transformers.AutoModel.from_pretrained({folder!r})"
        if not hasattr(source.model, "get_output_embeddings") or "For" not in name
        else f"transformers.{name}.from_pretrained({{folder!r}})",
    }
    if source.checkpoint.config.get("model_type") == OUR_TYPE:
        opens = find_opening(source, {}).described
    layouts = source.graph.layouts
    zeros = round(sum(shares[name] * prod(axis.size for axis in layouts[name]) for name in inputs))
    made = Step({}, size, {**size, "zeros": zeros}, {}, opens, list(source.graph.notes), sparsity=shares)
    if folder is not None:
        with work.timed("zero"):
            _write(work, step, inputs, shares, folder)
        with work.timed("verify"):
            made.notes.append(_verify(work, step, inputs, shares, folder))
    return made


def stages(step: PruneWeights, given: bool, *, written: bool) -> list[str]:
    """Those that `execute` goes through."""
    return ["decide", *(["zero", "verify"] if written else [])]


def assist(work: Work, step: PruneWeights, given: Step | None) -> None:
    """What the other processes of a distributed run do meanwhile: calibrate and zero along, and write nothing."""
    inputs = find_matrices(work.source.graph, step)
    shares = given.sparsity if given is not None else _shares(work, step, inputs)
    _pass(work, step, inputs, shares, lambda name, tensor: None)


def _shares(work: Work, step: PruneWeights, inputs: dict[str, int]) -> dict[str, float]:
    """What share of each matrix goes. Raises BudgetError where `until` asks for more than there is, or nothing."""
    source, entry = work.source, ratios.get(step.allocate.name)
    zeroing = Zeroing(source.graph, step, inputs, work.recipe.seed)
    scored = zeroing.needs if entry.meta.get("scores") else ()
    needs = {name: set(inputs) for name in (*statistics_of(entry, step.allocate.arguments), *scored)}
    stats = _gathered(work, needs) if needs else {}

    def measure(count: int) -> WholeModel:
        return WholeModel(source.checkpoint, calibration(work.source, work.recipe)[0][:count], work.options.where)

    def score(name: str) -> Tensor:
        return zeroing.saliency(name, source.weights.read(name), stats)

    matrices = Matrices(source.graph, inputs, source.weights.read, stats, measure, score)
    if step.n_m is not None:
        share = step.n_m[0] / step.n_m[1]
    elif step.remove is not None:
        share = step.remove
    else:
        assert step.until is not None
        gone = work.original.params - source.graph.parameters()
        share = (step.until * work.original.params - gone) / matrices.total
        most = (gone + matrices.total) / work.original.params
        if not 0 < share < 1:
            why = f"{gone / work.original.params:.1%} is gone already" if share <= 0 else f"at most {most:.1%} can go"
            raise BudgetError(f"until: {step.until:.1%} of the original model: {why}")
    return {name: float(value) for name, value in entry.bind(step.allocate.arguments)(matrices, share).items()}


def _write(work: Work, step: PruneWeights, inputs: dict[str, int], shares: dict[str, float], folder: Path) -> None:
    source, weights = work.source, work.source.weights
    specs = [(name, spec.dtype, spec.shape) for name, spec in source.checkpoint.tensors.items()]
    specs = [spec for spec in specs if spec[0] not in set(weights.unexpected)]
    with ShardWriter(folder, specs) as writer:

        def put(name: str, tensor: Tensor) -> None:
            if pieces := weights.pieces(name):
                for piece in pieces:
                    writer.add(piece.disk, piece.of(tensor))
            else:
                for disk in weights.disk_names(name):
                    writer.add(disk, tensor)

        _pass(work, step, inputs, shares, put)
        for name in weights.names(""):
            if name not in inputs:
                for disk in weights.disk_names(name):
                    writer.add(disk, weights.read_stored(disk))
    write_model_files(source, source.checkpoint.config, folder)


def _pass(work: Work, step: PruneWeights, inputs: dict[str, int], shares: dict[str, float], put: Put) -> None:
    """Hand every zeroed tensor to `put(name, tensor)`, as stored."""
    source = work.source
    zeroing = Zeroing(source.graph, step, inputs, work.recipe.seed)
    needs = {name: set(inputs) for name in zeroing.needs}
    backward = {name: keys for name, keys in needs.items() if statistics.get(name).meta["at"] == "gradient"}
    forward = {name: keys for name, keys in needs.items() if name not in backward}
    # Gradients are the dense model's, also where activations are those of the pruned blocks (as GBLM's code has it).
    onward = step.propagate != "dense"
    dense = _gathered(work, backward if onward else needs) if needs else {}
    if forward and onward:

        def change(where: str, module: nn.Module, stats: Stats) -> None:
            both = {**{name: dense[name] for name in backward}, **stats}
            names = [name for name in inputs if name.startswith(where + ".")]
            for name in names:
                parent, _, own = name[len(where) + 1 :].rpartition(".")
                loaded = getattr(module.get_submodule(parent), own).detach()
                as_stored = loaded.dtype == source.weights.dtype(name) and loaded.device.type == "cpu"
                tensor = zeroing(name, loaded if as_stored else source.weights.read(name), shares[name], both)
                put(name, tensor)
                if tensor is not loaded:
                    loaded.copy_(tensor)
            stats.drop(names)  # pyright: ignore[reportAttributeAccessIssue] - so that memory stays one block's

        rows, _ = calibration(work.source, work.recipe)
        inside = step.propagate == "true_sequential"
        collect(source.checkpoint, source.graph, forward, rows, change=change, inside=inside, device=work.options.where)
        return
    for name in track(list(inputs), "zeroing"):
        put(name, zeroing(name, source.weights.read(name), shares[name], dense))


def _gathered(work: Work, needs: dict[str, set[str]]) -> Stats:
    """Statistics of the dense model, kept for other recipes."""
    if not needs:
        return {}
    rows, key = calibration(work.source, work.recipe)
    source = work.source
    return collect(source.checkpoint, source.graph, needs, rows, data_key=key, device=work.options.where)


def _verify(work: Work, step: PruneWeights, inputs: dict[str, int], shares: dict[str, float], folder: Path) -> str:
    """Read what was written: as many zeros as asked, no more, and all else the input's unless it is updated.

    Raises VerifyError.
    """
    source = work.source
    zeroing = Zeroing(source.graph, step, inputs, work.recipe.seed)
    try:
        written = Source.of(open_checkpoint(folder, trust_remote_code=source.checkpoint.trust_remote_code))
        zeros = total = 0
        for name in track(source.weights.names(""), "verifying"):
            before, after = source.weights.read(name), written.weights.read(name)
            if name not in inputs:
                if not torch.equal(before, after):
                    raise VerifyError(f"{name} is not the input's")
                continue
            rows = 1 / after.shape[inputs[name]]
            rounding = 0.5 * (prod(step.tile) / prod(after.shape[-2:]) if step.tile else rows)
            zeros += _check_matrix(name, before, after, shares[name], 0.01 + rounding, zeroing.updates)
            total += after.numel()
    except VerifyError:
        raise
    except CompressError as error:
        raise VerifyError(f"what was written cannot be read: {error}") from error
    said = f"verified: {zeros / total:.1%} of {len(inputs)} projections' weights are zero, all else is the input's"
    updated = ", but for the weights beside the zeros: an update moved them, so their values were not checked"
    return said + updated if zeroing.updates else said


def _check_matrix(name: str, before: Tensor, after: Tensor, share: float, slack: float, updated: bool) -> int:
    """How many weights of a matrix are zero; zeros that the input had may come on top of its `share`."""
    gone = after == 0
    count, had = int(gone.sum()), int((before == 0).sum())
    if not updated and not torch.equal(before.masked_fill_(gone, 0), after):
        raise VerifyError(f"{name}: weights that stay are not the input's")
    if not share - slack <= count / gone.numel() <= share + slack + had / gone.numel():
        raise VerifyError(f"{name}: {count / gone.numel():.1%} of its weights are zero, not {share:.1%}")
    return count
