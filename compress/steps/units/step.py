"""Removing whole units: collect, score, allocate, cut, verify."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np

from compress.console import detail, say
from compress.execution.document import Step, indices, shares
from compress.execution.work import Work
from compress.output_format.find import Opening, find_opening
from compress.recipe.prune import Prune
from compress.steps.units.align import align
from compress.steps.units.decide import adds_bias, decide, families_of, gather, in_sequence, mending, reads_text
from compress.surgery.cut import cut, output_specs
from compress.surgery.verify.run import verify

Kept = dict[str, np.ndarray]


def execute(work: Work, step: Prune, given: Step | None, folder: Path | None) -> Step:
    """Decide, or take what a plan has `given`; with a folder write the pruned model there and verify it."""
    source, where = work.source, work.options.where
    families = families_of(source.graph, step)
    masks = None if given is None else given.masks(source.graph)
    mixes = {} if given is None else given.mixes(source.graph)
    if step.propagate == "pruned":
        with work.timed("calibrate"):
            kept, stats = in_sequence(source, work.recipe, step, families, where, masks)
    else:
        with work.timed("calibrate"):
            stats = gather(source, work.recipe, step, families, where, decide=masks is None)
        with work.timed("decide"):
            if masks is None:
                kept, mixes = decide(source, work.recipe, step, families, stats, work.original)
            else:
                kept = masks
    with work.timed("decide"):
        opening = find_opening(source, kept, adds_bias=adds_bias(step), widths=step.widths)
    made = _described(work, kept, mixes, opening)
    work.tally.add(source.graph, kept)
    if given is None:
        for note in opening.notes:
            detail(note)
        if opening.remote_code:
            say(f"step {len(work.steps) + 1}: opens with {opening.who}")
    if folder is not None:
        with work.timed("cut"):
            orders = align(source, kept, mixes) if step.align else None
            cut(source, kept, opening, folder, mend=mending(step, stats), mixes=mixes, orders=orders)
        with work.timed("verify"):
            made.notes.append(verify(source, kept, opening, folder, mended=step.repair is not None, mixes=mixes))
    return made


def stages(step: Prune, given: bool, *, written: bool) -> list[str]:
    """Those that `execute` goes through, with a plan `given` or without."""
    asks = step.propagate == "pruned" or reads_text(step, decide=not given)
    return [*(["calibrate"] if asks else []), "decide", *(["cut", "verify"] if written else [])]


def assist(work: Work, step: Prune, given: Step | None) -> None:
    """What the other processes of a distributed run do meanwhile: calibrate along."""
    source, where = work.source, work.options.where
    families = families_of(source.graph, step)
    if step.propagate == "pruned":
        masks = None if given is None else given.masks(source.graph)
        in_sequence(source, work.recipe, step, families, where, masks)
    else:
        gather(source, work.recipe, step, families, where, decide=given is None)


def _described(work: Work, kept: Kept, mixes: Kept, opening: Opening) -> Step:
    source, graph = work.source, work.source.graph
    written = sum(prod(shape) * dtype.itemsize for _, dtype, shape in output_specs(source, kept, opening, mixes))
    added = sum(prod(shape) for shape in (*opening.biases.values(), *opening.zeros.values()))
    before = work.size(graph, source.checkpoint.bytes)
    after = work.size(graph, written, kept)
    after["params"] += added
    edits = {path: [old, new] for path, (old, new) in opening.edits.items()}
    notes = [*graph.notes, *opening.notes]
    if dropped := source.weights.unexpected:
        notes.append(f"left out: {dropped[0]} and whatever else the model has no place for ({len(dropped)} tensors)")
    return Step(indices(kept), before, after, edits, opening.described, notes, shares(mixes))
