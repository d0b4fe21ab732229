"""Normalisations over samples and over groups of channels."""

from __future__ import annotations

from torch import Tensor
from torch.utils._pytree import tree_leaves

from compress.graph.axes import Node, split, unify
from compress.graph.record import Recorder, rule


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update",
    "_batch_norm_with_update",
    "cudnn_batch_norm",
    "miopen_batch_norm",
)
def batch_norm(recorder: Recorder, op, args, kwargs, output) -> None:
    """Each channel of `[samples, channels, …]` by statistics, gain and bias of its own."""
    dims = recorder.dims(args[0])
    vectors = [x for x in args[1:5] if isinstance(x, Tensor)]
    for vector in vectors:
        unify(dims[1], recorder.dims(vector)[0])
    results = [x for x in tree_leaves(output) if isinstance(x, Tensor)]
    recorder.bind(results[0], list(dims))
    for statistic in results[1:]:
        same = statistic.dim() == 1 and len(statistic) == dims[1].size
        recorder.bind(statistic, [dims[1]] if same else [Node(n) for n in statistic.shape])
    if len(vectors) == 4:
        recorder.normalised(args[0], vectors[2])


@rule("native_group_norm")
def group_norm(recorder: Recorder, op, args, kwargs, output) -> None:
    """Channels are groups × channels of a group, which are averaged over: only whole groups can go."""
    dims, groups = recorder.dims(args[0]), args[6]
    for vector in args[1:3]:
        if isinstance(vector, Tensor):
            unify(dims[1], recorder.dims(vector)[0])
    group, own = split(dims[1], dims[1].size // groups)
    own.mark("averaged")
    results = [x for x in tree_leaves(output) if isinstance(x, Tensor)]
    recorder.bind(results[0], list(dims))
    for statistic in results[1:]:
        recorder.bind(statistic, [dims[0], group][: statistic.dim()])
