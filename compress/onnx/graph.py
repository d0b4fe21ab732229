"""Writing the graph: transformers' exporter, with the names and axes that other software looks for."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import InputError, ModelError
from compress.onnx.interface import Interface, part
from compress.onnx.session import PAST, PRESENT
from compress.onnx.settings import OnnxSettings

LARGEST_FILE = 2_000_000_000
"""Bytes of weights up to which they are inside the .onnx file; protobuf ends at two gibibytes."""

BATCH, LENGTH, BEFORE = 2, 8, 5
"""The shape that is traced, and how many tokens of it are in the cache. Sizes of one or none would become fixed."""

CACHED = re.compile(r"(?:(?:input|output)\.)?past_key_values\.(?:layers\.)?(\d+)\.(key|value)s?")


def write_graph(model: nn.Module, interface: Interface, settings: OnnxSettings, path: Path) -> int:
    """Trace `model` and write `path`, with `<name>.data` beside it for weights above 2 GB; returns the opset.

    Inputs and outputs are named as Optimum, ONNX Runtime GenAI and Transformers.js expect them. Raises InputError when
    a package is missing, ModelError when the model cannot be exported with the axes that are asked for.
    """
    try:
        from transformers.exporters.configs import OnnxConfig
        from transformers.exporters.exporter_onnx import OnnxExporter

        with _quiet():
            exporter = OnnxExporter()
    except ImportError as error:
        raise InputError(f"ONNX export: {error}; pip install 'compress-models[onnx]'") from None
    batch = BATCH if "batch" in settings.dynamic else settings.batch
    length = LENGTH if "sequence" in settings.dynamic else settings.length
    sample: dict[str, Any] = dict(interface.sample(batch, length))
    if interface.cache:
        sample = _with_cache(model, sample, length)
    config = OnnxConfig(dynamic_shapes=_shapes(sample, interface, settings), opset_version=settings.opset)
    try:
        with _quiet(), _no_stack_traces(), _operators_listed_once(), torch.no_grad():
            program = exporter.export(model, sample, config=config).program  # pyright: ignore[reportArgumentType]
    except Exception as error:  # the exporter raises whatever the model's code and the translation run into
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{type(model).__name__} cannot be exported to ONNX: {reason}") from error
    _rename(program, interface, settings)
    _forget(program)
    import onnx_ir

    weights = sum(value.const_value.nbytes for value in program.graph.initializers.values() if value.const_value)
    onnx_ir.save(program, str(path), external_data=path.name + ".data" if weights > LARGEST_FILE else None)
    return program.opset_imports[""]


def _with_cache(model: nn.Module, sample: dict[str, Tensor], length: int) -> dict[str, Any]:
    """A call in the middle of a text. Every layer keeps all keys, those of sliding windows too: the mask ends them."""
    from transformers import DynamicCache

    cache = DynamicCache()
    with torch.no_grad():  # not inference_mode, whose tensors cannot be traced
        model(**part(sample, 0, BEFORE), past_key_values=cache, use_cache=True)
    return {**part(sample, BEFORE, length), "past_key_values": cache}


def _free(axis: str | None, settings: OnnxSettings) -> bool:
    """Whether an axis of this name is to be of any size: `past_sequence` is where `sequence` is."""
    return axis is not None and axis.rpartition("_")[2] in settings.dynamic


def _shapes(sample: dict[str, Any], interface: Interface, settings: OnnxSettings) -> dict[str, Any]:
    """Which axes of every input are free, as `torch.export` takes it."""
    free = torch.export.Dim.AUTO
    batch = {0: free} if "batch" in settings.dynamic else {}
    found: dict[str, Any] = {
        name: {dim: free for dim, axis in enumerate(axes) if _free(axis, settings)}
        for name, axes in interface.axes.items()
    }
    if "past_key_values" in sample:
        found["past_key_values"] = [{**batch, 2: free}] * (2 * len(sample["past_key_values"].layers))
    return found


def _rename(program: Any, interface: Interface, settings: OnnxSettings) -> None:
    """Give inputs, outputs and free axes their usual names. Raises ModelError when an axis came out fixed."""
    import onnx_ir

    axes: dict[str, str] = {}
    for value, prefix in [*((v, PAST) for v in program.graph.inputs), *((v, PRESENT) for v in program.graph.outputs)]:
        if match := CACHED.fullmatch(value.name):
            value.name = f"{prefix}{match[1]}.{match[2]}"
    for value in program.graph.inputs:
        names = interface.axes.get(value.name) or ("batch", None, "past_sequence", None)
        if interface.cache and value.name == "attention_mask":
            names = ("batch", "total_sequence")
        for size, name in zip(value.shape, names, strict=True):
            if name is None or not _free(name, settings):
                continue
            if isinstance(size, int):
                raise ModelError(f"the axis {name} of {value.name} became {size} in the graph; leave it out of dynamic")
            axes[str(size.value)] = name
    every = [*program.graph.inputs, *(output for node in program.graph for output in node.outputs)]
    for value in every:
        if value.shape is not None:
            value.shape = onnx_ir.Shape([_axis(size, axes) for size in value.shape])


def _axis(size: Any, names: dict[str, str]) -> int | str | None:
    """`s16 + s70` as `past_sequence + sequence`."""
    if isinstance(size, int):
        return size
    return re.sub(r"\w+", lambda match: names.get(match[0], match[0]), str(size.value)) if size.value else None


def _forget(program: Any) -> None:
    """Leave out where in the Python code each node came from: the paths of this machine, larger than small models."""
    for graph in [program.graph, *program.functions.values()]:
        graph.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()


@contextmanager
def _no_stack_traces() -> Iterator[None]:
    """Where a node comes from is forgotten in the end, and noting it for each takes a tenth of the time."""
    config: Any = getattr(torch.fx, "config", None)
    before = getattr(config, "do_not_emit_stack_traces", None)  # not every version of torch has it
    if before is None:
        yield
        return
    config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        config.do_not_emit_stack_traces = before


@contextmanager
def _operators_listed_once() -> Iterator[None]:
    """For every graph torch has onnxscript list its operators, which reads the source of 500 functions: a third of the
    time that a small graph takes."""
    from torch.onnx._internal.exporter import _registration

    source: Any = getattr(_registration, "onnxscript_apis", None)
    before = getattr(source, "get_torchlib_ops", None)  # private: another version of torch may ask elsewhere
    if before is None:
        yield
        return
    source.get_torchlib_ops = lambda: _operators(before)
    try:
        yield
    finally:
        source.get_torchlib_ops = before


@cache
def _operators(listing: Callable[[], list[Any]]) -> list[Any]:
    return listing()


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress, and warns of what it does by itself."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)
