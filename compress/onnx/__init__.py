"""ONNX: a checkpoint as a graph that ONNX Runtime runs, checked against torch."""

from compress.onnx.feed import Feed
from compress.onnx.folder import FILE, Exported, export_model
from compress.onnx.generate import greedy
from compress.onnx.session import Session

__all__ = ["FILE", "Exported", "Feed", "Session", "export_model", "greedy"]
