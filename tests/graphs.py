"""Small ONNX files written by hand, in the styles that exporters have had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCABULARY, WIDTH, HEADS, HEAD, INNER = 20, 12, 4, 3, 10


class Writing:
    """A graph while it is written: every call adds a node and gives the name of its output."""

    def __init__(
        self, *, opset: int = 17, constants: bool = False, dtype: Any = np.float32, cast: bool = False, seed: int = 0
    ) -> None:
        self.opset, self.constants, self.dtype, self.cast = opset, constants, dtype, cast
        self.nodes: list[Any] = []
        self.stored: list[Any] = []
        self.rng = np.random.default_rng(seed)

    def __call__(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        names = [f"{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def array(self, name: str, value: Any) -> str:
        """A constant, as an initialiser or as a node."""
        proto = numpy_helper.from_array(np.asarray(value), name)
        if self.constants:
            self.nodes.append(helper.make_node("Constant", [], [name], value=proto))
        else:
            self.stored.append(proto)
        return name

    def weight(self, name: str, *shape: int) -> str:
        """Random numbers; with `cast` they are stored in half precision."""
        numbers = (self.rng.standard_normal(shape) / 2).astype(np.float16 if self.cast else self.dtype)
        found = self.array(name, numbers)
        return self("Cast", found, to=TensorProto.FLOAT) if self.cast else found

    def axes(self, kind: str, value: str, axes: list[int], **more: Any) -> str:
        """An operator whose axes are an operand from opset 13 on."""
        if self.opset < 13:
            return self(kind, value, axes=axes, **more)
        return self(kind, value, self.array(f"axes_{len(self.nodes)}", np.array(axes)), **more)

    def save(self, path: Path, inputs: dict[str, tuple[int, list]], outputs: dict[str, list], **more: Any) -> Path:
        """The checked file."""
        given = [helper.make_tensor_value_info(name, *info) for name, info in inputs.items()]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        made = [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()]
        for name, node in zip(outputs, self.nodes[-len(outputs) :], strict=True):
            node.output[0] = name
        graph = helper.make_graph(self.nodes, "graph", given, made, self.stored)
        domains = {node.domain for node in self.nodes} - {""}
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        if not domains:
            onnx.checker.check_model(model)
        onnx.save(model, str(path), **more)
        return path


def transformer(
    path: Path,
    *,
    layers: int = 2,
    computed: bool = False,
    tied: bool = True,
    vocabulary: int = VOCABULARY,
    anonymous: bool = False,
    **style: Any,
) -> Path:
    """Text in, logits out: attention, an MLP, residual sums. `computed`: sizes follow from the shape of the input.
    `anonymous`: only biases have names that tell of the layers, one behind the logits too."""
    external = style.pop("external", False)
    w = Writing(**style)
    table = w.weight("embed.weight", vocabulary, WIDTH)
    x = w("Gather", table, "input_ids")
    scale = w.array("scale", np.array(HEAD**-0.5, w.dtype))
    apart, joined = np.array([0, 0, HEADS, HEAD]), np.array([0, 0, HEADS * HEAD])
    for i in range(layers):
        at = f"layers.{i}."
        if computed:
            sizes = w("Shape", "input_ids")
            apart_to = w("Concat", sizes, w.array(f"{at}apart", np.array([HEADS, HEAD])), axis=0)
            joined_to = w("Concat", sizes, w.array(f"{at}joined", np.array([HEADS * HEAD])), axis=0)
        else:
            apart_to, joined_to = w.array(f"{at}apart", apart), w.array(f"{at}joined", joined)

        def project(name: str, value: str, wide: int, out: int, at: str = at) -> str:
            own = f"val_{len(w.nodes)}" if anonymous else f"{at}{name}.weight"
            found = w("MatMul", value, w.weight(own, wide, out))
            return w("Add", found, w.weight(f"{at}{name}.bias", out)) if name != "o" else found

        def heads(name: str, perm: list[int], value: str = x, to: str = apart_to) -> str:
            return w("Transpose", w("Reshape", project(name, value, WIDTH, HEADS * HEAD), to), perm=perm)

        q, k, v = heads("q", [0, 2, 1, 3]), heads("k", [0, 2, 3, 1]), heads("v", [0, 2, 1, 3])
        weights = w("Softmax", w("Mul", w("MatMul", q, k), scale), axis=3)
        mixed = w("Reshape", w("Transpose", w("MatMul", weights, v), perm=[0, 2, 1, 3]), joined_to)
        x = w("Add", x, project("o", mixed, HEADS * HEAD, WIDTH))
        x = w("Add", x, project("down", w("Relu", project("up", x, WIDTH, INNER)), INNER, WIDTH))
    last = w("Transpose", table, perm=[1, 0]) if tied else w.weight("head.weight", WIDTH, vocabulary)
    logits = w("MatMul", x, last)
    if anonymous:
        w("Add", logits, w.weight("head.dense.bias", vocabulary))
    shape = ["batch", "sequence"]
    more = {"save_as_external_data": True, "size_threshold": 0} if external else {}
    return w.save(path, {"input_ids": (TensorProto.INT64, shape)}, {"logits": [*shape, vocabulary]}, **more)


def network(path: Path, **style: Any) -> Path:
    """An image in, classes out: depth-wise and grouped convolutions, a batch norm, two branches joined and split."""
    w = Writing(**style)
    x = w("Conv", "pixels", w.weight("stem.weight", 8, 3, 3, 3), w.weight("stem.bias", 8), pads=[1, 1, 1, 1])
    statistics = [w.weight(f"norm.{name}", 8) for name in ("weight", "bias", "mean")]
    variance = w.array("norm.variance", w.rng.uniform(0.5, 2, 8).astype(w.dtype))
    x = w("Relu", w("BatchNormalization", x, *statistics, variance))
    x = w("Conv", x, w.weight("depth.weight", 8, 1, 3, 3), pads=[1, 1, 1, 1], group=8)
    one = w("Relu", w("Conv", x, w.weight("one.weight", 6, 8, 1, 1)))
    two = w("Sigmoid", w("Conv", x, w.weight("two.weight", 4, 8, 1, 1)))
    x = w("Concat", one, two, axis=1)
    sizes = {"split": [6, 4]} if w.opset < 13 else {}
    split = w("Split", x, *([] if sizes else [w.array("sizes", np.array([6, 4]))]), outputs=2, axis=1, **sizes)
    x = w("Conv", split[0], w.weight("left.weight", 6, 6, 3, 3), auto_pad="SAME_UPPER")
    y = w("Conv", split[1], w.weight("right.weight", 6, 4, 3, 3), pads=[0, 1, 2, 1])
    x = w("Flatten", w("GlobalAveragePool", w("Mul", x, w("HardSigmoid", y))))
    x = w("Relu", w("Gemm", x, w.weight("hidden.weight", 9, 6), w.weight("hidden.bias", 9), transB=1))
    w("Gemm", x, w.weight("classes.weight", 9, 5), w.weight("classes.bias", 5))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(w.dtype))
    return w.save(path, {"pixels": (kind, ["batch", 3, 8, 8])}, {"classes": ["batch", 5]})
