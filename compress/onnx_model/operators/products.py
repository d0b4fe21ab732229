"""Products of matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.onnx_model.file import Node
from compress.onnx_model.registry import operator


@operator("MatMul")
def matmul(node: Node, left: Tensor, right: Tensor) -> Tensor:
    return torch.matmul(left, right)


@operator("Gemm")
def gemm(node: Node, left: Tensor, right: Tensor, added: Tensor | None = None) -> Tensor:
    left = left.t() if node.get("transA", 0) else left
    right = right.t() if node.get("transB", 0) else right
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    found = torch.mm(left, right)
    found = found if alpha == 1 else alpha * found
    return found if added is None else found + (added if beta == 1 else beta * added)


@operator("FusedMatMul", domain="com.microsoft")
def fused_matmul(node: Node, left: Tensor, right: Tensor) -> Tensor:
    """ONNX Runtime's product of matrices of which either is turned first."""
    if node.get("transBatchA", 0) or node.get("transBatchB", 0):
        raise NotImplementedError("transBatchA and transBatchB")
    left = left.transpose(-1, -2) if node.get("transA", 0) else left
    right = right.transpose(-1, -2) if node.get("transB", 0) else right
    found, alpha = torch.matmul(left, right), node.get("alpha", 1.0)
    return found if alpha == 1 else alpha * found


@operator("Einsum")
def einsum(node: Node, *values: Tensor) -> Tensor:
    return torch.einsum(node.get("equation").replace(" ", ""), *values)
