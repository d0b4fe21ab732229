"""All checks of a written folder, from the cheapest on, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from compress.checkpoint.open import open_checkpoint
from compress.console import task
from compress.errors import CompressError, VerifyError
from compress.graph.names import Names
from compress.inputs.batch import Batch
from compress.model.build import runnable_model
from compress.model.source import Source
from compress.model.weights import Weights
from compress.output_format.find import Opening
from compress.stream.memory import trim
from compress.surgery.experts import Mixes
from compress.surgery.verify.cached import STEPS, check_cache, decodes
from compress.surgery.verify.forward import Advance, output
from compress.surgery.verify.masked import Kept, changed_tensors, masked_output
from compress.surgery.verify.noise import apart
from compress.surgery.verify.shapes import check_places, check_untraced

LEAST = 1e-5
"""Largest difference of two outputs that is always right, as a share of the largest magnitude in the second."""
TIMES = 10
"""How many times what float32 itself is off two outputs may differ."""
HELD = 2_000_000_000
"""Bytes in float32 up to which the pruned model stays in memory between the checks; a larger one is read for each."""


def verify(
    source: Source, kept: Kept, opening: Opening, folder: Path, *, mended: bool = False, mixes: Mixes | None = None
) -> str:
    """Check the written folder against its config and the masked dense model; returns what was found, for the report.

    Every tensor that no repair touched (`mended`: there was one) and that is not put together of several experts' must
    be the input's, sliced, bit for bit. The masked dense model's routers do not see the experts that are gone.
    Both models run in float32 over the small inputs that `source.inputs` checks by. How
    far they may differ is measured: `TIMES` what the pruned model
    differs from itself when its sums are made in another order, `LEAST` at least. Where the dense model is as close to
    the masked one, that is said: what was removed does not matter, so a mistake would not be seen.
    A model that generates also decodes with its cache, as it does by default, and must agree with its own forward.
    Where the residual width was cut only shapes and finiteness are checked: a norm averages over fewer channels then,
    which no mask imitates. What these inputs do not run (a vision tower) is compared bit for bit, and named.
    Raises VerifyError, and ModelError for a model that can be given no inputs.
    """
    batch = source.inputs.check()
    blocks = [new for block in source.graph.blocks if (new := Names(source.graph, kept).new(block)) is not None]
    try:
        pruned = open_checkpoint(folder, trust_remote_code=source.checkpoint.trust_remote_code)
        check_places(pruned, folder)
        model = runnable_model(pruned)
        weights = Weights(pruned, model)
    except CompressError as error:
        raise VerifyError(f"what was written cannot be opened: {error}") from error
    cached = _removes(kept) and decodes(model, source, batch)
    total = len(blocks) * (1 + cached * (STEPS + 1)) + 2 * len(source.graph.blocks)
    with task("verifying", total) as advance, _held(weights):
        try:
            found, again = output(model, weights, blocks, batch, advance, twice=True)
        except CompressError as error:
            raise VerifyError(f"what was written cannot be opened: {error}") from error
        if not torch.isfinite(found).all():
            raise VerifyError("the pruned model's output is not finite")
        tolerance = max(LEAST, TIMES * apart(again, found))
        rest = check_untraced(source, kept, pruned)
        if any(source.graph.families[name].kind == "hidden" for name in kept):
            said = _unmatched("a narrower residual stream has no masked equal")
        else:
            changed = changed_tensors(source, kept, mended, mixes or {})
            masked = masked_output(source, kept, opening, weights, batch, changed, advance)
            said = _match(source, kept, batch, found, masked, tolerance, advance)
        decoding = check_cache(source, model, weights, blocks, batch, found, tolerance, advance) if cached else ""
    return f"verified: {said}{decoding}{rest}"


def _match(
    source: Source, kept: Kept, batch: Batch, found: Tensor, masked: Tensor | None, tolerance: float, advance: Advance
) -> str:
    """Raises VerifyError where the pruned model does not compute what the masked one does."""
    if masked is None:
        return _unmatched("these blocks pass on more than hidden states, so none can be masked")
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
