"""Reductions and normalisations: the dimensions they run over are marked, the others pass."""

from __future__ import annotations

from torch import Tensor
from torch.utils._pytree import tree_leaves

from compress.graph.axes import Node, unify
from compress.graph.record import Recorder, rule

# A mean over fewer members is another mean; a sum over members that are zero is the same sum.
AVERAGES = {"mean", "var", "var_mean", "std", "std_mean", "median", "logsumexp", "amax", "amin", "max", "min"}


@rule(
    "mean",
    "sum",
    "var",
    "var_mean",
    "std",
    "std_mean",
    "amax",
    "amin",
    "max",
    "min",
    "any",
    "all",
    "prod",
    "argmax",
    "argmin",
    "linalg_vector_norm",
    "norm",
    "logsumexp",
    "median",
)
def reduction(recorder: Recorder, op, args, kwargs, output) -> None:
    source: Tensor = args[0]
    name = op.overloadpacket.__name__
    chosen = kwargs.get(
        "dim",
        args[2]
        if name in ("linalg_vector_norm", "norm") and len(args) > 2
        else args[1]
        if len(args) > 1 and name not in ("linalg_vector_norm", "norm")
        else None,
    )
    places = range(source.dim()) if chosen is None or chosen == [] else [chosen] if isinstance(chosen, int) else chosen
    gone = {p % source.dim() for p in places} if source.dim() else set()
    dims = recorder.dims(source)
    for place in gone:
        dims[place].mark("averaged" if name in AVERAGES else "summed")
    for result in tree_leaves(output):
        if isinstance(result, Tensor):
            keep = result.dim() == source.dim()
            recorder.bind(result, [Node(1) if i in gone else d for i, d in enumerate(dims) if keep or i not in gone])


@rule("native_layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(recorder: Recorder, op, args, kwargs, output) -> None:
    source: Tensor = args[0]
    dims, count = recorder.dims(source), len(args[1])
    for parameter in args[2:4]:
        if isinstance(parameter, Tensor):
            for node, own in zip(dims[-count:], recorder.dims(parameter), strict=True):
                unify(node, own)
    for node in dims[-count:]:
        node.mark("averaged")
    results = [x for x in tree_leaves(output) if isinstance(x, Tensor)]
    recorder.bind(results[0], list(dims))
    for statistic in results[1:]:
        recorder.bind(statistic, [*dims[:-count], *[Node(1)] * count][: statistic.dim()])


@rule("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax")
def softmax(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    dims = recorder.dims(args[0])
    dims[args[1]].mark("averaged", "softmax")
    recorder.bind(output, list(dims))


@rule("cumsum", "cumprod", "logcumsumexp")
def scan(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    dims = recorder.dims(args[0])
    dims[args[1]].pin("a running sum goes along it")
    recorder.bind(output, list(dims))
