"""Features that are put where a text has tokens for them: their width passes, their places stay whole."""

from __future__ import annotations

from torch import Tensor

from compress.graph.axes import unify
from compress.graph.record import Recorder, rule

PLACES = "entries of it are written where a mask says"


@rule("masked_scatter")
def masked_scatter(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """`given` `[…, width]`, `mask` equal along the width, `source` `[…, width]` row by row: their widths are one axis.

    With a mask that differs along the width, or a source of another width, all of it stays whole.
    """
    given, mask, source = args
    own, other = recorder.dims(given), recorder.dims(source)
    rows = mask.shape[-1] == 1 or mask.stride(-1) == 0
    passes = rows and source.dim() > 0 and own[-1].size == other[-1].size
    if passes:
        unify(own[-1], other[-1])
    for node in [*(own[:-1] if passes else own), *(other[:-1] if passes else other)]:
        node.pin(PLACES)
    recorder.bind(output, list(own))
