"""ONNX files that cannot be pruned, in whole or in part: what stays, and who says why."""

from __future__ import annotations

import graphs
import numpy as np
import onnx
import pytest
from onnx import TensorProto

import compress
from compress.errors import BudgetError, InputError, ModelError
from compress.onnx_model.architecture import open_onnx


def test_gradients_are_refused_by_name(tmp_path):
    dense = graphs.transformer(tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"steps\.0\.by: taylor reads gradients"):
        compress.run("taylor-20", dense, tmp_path / "small.onnx")


def test_an_operator_of_another_domain_is_named_with_its_weights(tmp_path):
    w = graphs.Writing()
    w("Mystery", w("MatMul", "x", w.weight("a.weight", 4, 6)), w.weight("b.weight", 6), domain="com.example")
    path = w.save(tmp_path / "model.onnx", {"x": (TensorProto.FLOAT, ["n", 4])}, {"y": ["n", 6]})
    with pytest.raises(ModelError, match=r"com\.example\.Mystery at Mystery_1.*it reads b\.weight"):
        compress.inspect(path)


def test_a_graph_in_a_node_is_refused_with_its_weights(tmp_path):
    w = graphs.Writing()
    weight, flag = w.weight("a.weight", 4, 4), w("ReduceMax", "flag", keepdims=0)
    branches = {}
    for name in ("then_branch", "else_branch"):
        node = onnx.helper.make_node("MatMul", ["x", weight], [name])
        made = onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        branches[name] = onnx.helper.make_graph([node], name, [], [made])
    w("If", w("Cast", flag, to=TensorProto.BOOL), **branches)
    inputs = {"x": (TensorProto.FLOAT, ["n", 4]), "flag": (TensorProto.FLOAT, [1])}
    path = w.save(tmp_path / "model.onnx", inputs, {"y": ["n", 4]})
    with pytest.raises(ModelError, match=r"If at 2 holds a graph of its own, with the weights a\.weight"):
        compress.inspect(path)


def test_what_an_operator_without_a_rule_touches_is_pinned(tmp_path):
    """Weights of eight bits are looked into no further: their widths stay, by name of what reads them."""
    w = graphs.Writing()
    scale, zero = w.array("scale", np.float32(0.1)), w.array("zero", np.uint8(128))
    bytes_ = w.array("q.weight", w.rng.integers(0, 255, (4, 6)).astype(np.uint8))
    x = w("Relu", w("MatMul", "x", w("DequantizeLinear", bytes_, scale, zero)))
    w("MatMul", x, w.weight("b.weight", 6, 3))
    path = w.save(tmp_path / "model.onnx", {"x": (TensorProto.FLOAT, ["n", 4])}, {"y": ["n", 3]})
    (family,) = [family for family in compress.inspect(path).families if "b.weight[0]" in family.members]
    assert "DequantizeLinear at DequantizeLinear_0 is not understood" in str(family.pinned)
    with pytest.raises(BudgetError):
        compress.run("magnitude-20", path, tmp_path / "small.onnx")


def test_a_width_that_a_graph_computes_with_stays(tmp_path):
    """Divided by the square root of the width of its heads, as read off a tensor: another width, another number."""
    w = graphs.Writing()
    x = w("MatMul", "x", w.weight("a.weight", 4, 6))
    width = w("Cast", w("Gather", w("Shape", x), w.array("place", np.array(1))), to=TensorProto.FLOAT)
    w("MatMul", w("Div", w("Relu", x), w("Sqrt", width)), w.weight("b.weight", 6, 3))
    path = w.save(tmp_path / "model.onnx", {"x": (TensorProto.FLOAT, ["n", 4])}, {"y": ["n", 3]})
    (family,) = [family for family in compress.inspect(path).families if family.kind == "channels"]
    assert "computes with a width" in str(family.pinned)


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    dense, file = graphs.transformer(tmp_path / "model.onnx"), tmp_path / "samples.npz"
    np.savez(file, tokens=np.zeros((2, 3), np.int64))
    with pytest.raises(InputError, match=r"has no array input_ids"):
        compress.run("flap-20", dense, tmp_path / "small.onnx", set=[f"calibrate.data={file}"])
    np.savez(file, input_ids=np.zeros((2, 3, 4), np.int64))
    with pytest.raises(InputError, match=r"input_ids is \[2, 3, 4\], the graph reads \['batch', 'sequence'\]"):
        compress.run("flap-20", dense, tmp_path / "small.onnx", set=[f"calibrate.data={file}"])
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(dense.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"no readable ONNX file|holds no graph"):
        open_onnx(damaged)
