"""Removed units: the pruned model computes what the dense one does with these masked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from compress.console import task
from compress.errors import VerifyError
from compress.graph.names import Names
from compress.inputs.batch import Batch
from compress.model.build import runnable_model
from compress.model.model import Model
from compress.model.weights import Weights
from compress.stream.memory import trim
from compress.surgery.edit import Written
from compress.surgery.experts import Mixes
from compress.surgery.verify.cached import STEPS, check_cache, decodes
from compress.surgery.verify.forward import Advance, output
from compress.surgery.verify.masked import Kept, changed_tensors, masked_output
from compress.surgery.verify.noise import apart
from compress.surgery.verify.shapes import check_untraced

LEAST = 1e-5
"""Largest difference of two outputs that is always right, as a share of the largest magnitude in the second."""
TIMES = 10
"""How many times what float32 itself is off two outputs may differ."""
INPUTS = 3
"""Random inputs that are compared where python branches on values."""
HELD = 600_000_000
"""Bytes in float32 up to which the pruned model stays in memory between the checks; a larger one is read for each."""


@dataclass(frozen=True)
class FiniteOnly:
    """The pruned model runs, and its output is finite.

    A model that generates also decodes with its cache, as it does by default, and must agree with its own forward. What
    such inputs do not run (a vision tower) is compared with the input bit for bit, and named. `kept`: family
    → bool `[size]`; `why` it cannot be compared with the input's output.
    """

    kept: Kept
    why: str

    def prove(self, source: Model, written: Written) -> str:
        """Run the pruned model in float32 over the small inputs that `source.inputs` checks by. Raises VerifyError, and
        ModelError for a model that can be given no inputs."""
        batch, kept = source.inputs.check(), self.kept
        blocks = [new for block in source.graph.blocks if (new := Names(source.graph, kept).new(block)) is not None]
        model = runnable_model(written.checkpoint)
        weights = Weights(written.checkpoint, model)
        cached = _removes(kept) and decodes(model, source, batch)
        total = len(blocks) * (1 + cached * (STEPS + 1)) + 2 * len(source.graph.blocks)
        with task("verifying", total) as advance, _held(weights):
            found, again = output(model, weights, blocks, batch, advance, twice=True)
            if not torch.isfinite(found).all() and not self._infinite(source, found, batch, advance):
                raise VerifyError("the pruned model's output is not finite")
            tolerance = max(LEAST, TIMES * apart(again, found))
            rest = check_untraced(source, kept, written.checkpoint)
            said = self._compared(source, weights, batch, found, tolerance, advance)
            decoding = check_cache(source, model, weights, blocks, batch, found, tolerance, advance) if cached else ""
        return f"{said}{decoding}{rest}"

    def _infinite(self, source: Model, found: Tensor, batch: Batch, advance: Advance) -> bool:
        """Whether the input's output is infinite in the very places where `found` is not finite."""
        model = runnable_model(source.checkpoint)
        (whole,) = output(model, Weights(source.checkpoint, model), source.graph.blocks, batch, advance)
        there = whole.isinf()
        return torch.equal(there, ~found.isfinite()) and torch.equal(whole[there], found[there])

    def _compared(
        self, source: Model, pruned: Weights, batch: Batch, found: Tensor, tolerance: float, advance: Advance
    ) -> str:
        """What is to be said of the output `found`."""
        return _unmatched(self.why)


@dataclass(frozen=True)
class EqualToMasked(FiniteOnly):
    """The pruned model computes what the dense one does whose removed parts are masked with zeros.

    Every tensor that no repair touched (`repaired`: there was one) and that is not put together of several experts'
    (`mixes`) must be the input's, sliced, bit for bit. The masked dense model's routers do not see the experts that are
    gone. How far the outputs may differ is measured: `TIMES` what the pruned model differs from itself when its sums
    are made in another order, `LEAST` at least. Where the dense model is as close to the masked one, that is said: what
    was removed does not matter, so a mistake would not be seen.
    """

    why: str = "these blocks pass on more than hidden states, so none can be masked"
    biases: tuple[str, ...] = ()
    repaired: bool = False
    mixes: Mixes = field(default_factory=dict)

    def _compared(
        self, source: Model, pruned: Weights, batch: Batch, found: Tensor, tolerance: float, advance: Advance
    ) -> str:
        changed = changed_tensors(source, self.kept, self.repaired, self.mixes)
        masked = masked_output(source, self.kept, self.biases, pruned, batch, changed, advance)
        if masked is None:
            return _unmatched(self.why)
        said = _match(source, self.kept, batch, found, masked, tolerance, advance)
        if not source.graph.guessed:
            return said
        names = Names(source.graph, self.kept)
        blocks = [new for block in source.graph.blocks if (new := names.new(block)) is not None]
        for seed in range(1, INPUTS):
            other = source.inputs.check(seed=seed)
            (found,) = output(pruned.model, pruned, blocks, other, advance)
            again = masked_output(source, self.kept, self.biases, pruned, other, changed, advance)
            if again is not None and not (off := apart(found, again)) <= tolerance:
                raise VerifyError(
                    f"on other inputs the pruned model's output differs from the masked dense model's by {off:.1e} of "
                    f"its largest value; {', '.join(source.graph.guessed)} branches on values, so it is not coupled as "
                    "the trace saw it"
                )
        return f"{said}; {', '.join(source.graph.guessed)} branches on values, so {INPUTS} inputs were compared"


def _match(
    source: Model, kept: Kept, batch: Batch, found: Tensor, masked: Tensor, tolerance: float, advance: Advance
) -> str:
    """Raises VerifyError where the pruned model does not compute what the masked one does."""
    if masked.shape != found.shape:
        raise VerifyError(f"the output is {list(found.shape)}, the masked dense model's {list(masked.shape)}")
    off = apart(found, masked)
    if not off <= tolerance:
        raise VerifyError(
            f"the pruned model's output differs from the masked dense model's by {off:.1e} of its largest value "
            f"(at most {tolerance:.1e} is right)"
        )
    said = f"shapes, and output equal to the masked dense model's to {off:.0e} (float noise is up to {tolerance:.0e})"
    if not _removes(kept):
        return said
    model = runnable_model(source.checkpoint)
    (whole,) = output(model, Weights(source.checkpoint, model), source.graph.blocks, batch, advance)
    effect = apart(whole, masked)
    if effect <= tolerance:
        said += f", but removing these changes the output by only {effect:.0e}, so the check has no power"
    return said


def _unmatched(why: str) -> str:
    return f"shapes and finite output only; that it computes what it should was not checked ({why})"


def _removes(kept: Kept) -> bool:
    return any(not mask.all() for mask in kept.values())


@contextmanager
def _held(weights: Weights) -> Iterator[None]:
    """The whole model in memory meanwhile, where it is small."""
    names = weights.names("")
    if 4 * sum(prod(weights.current(name).shape) for name in names) > HELD:
        yield
        return
    try:
        weights.load_names(names, torch.float32)
        yield
    finally:
        weights.unload_names(names)
        trim()
