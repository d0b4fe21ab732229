"""Quantised checkpoints are recognised by name, and refused before any work.

Criteria would score codes instead of weights, and stock loaders open such a folder by the method that its config
names: a pruned one that keeps the config would not load, or be quantised a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from compress.errors import ModelError

if TYPE_CHECKING:
    from compress.checkpoint.header import TensorSpec

KEYS = ("quantization_config", "compression_config")
CURE = "give the unquantised original, and quantise the pruned model afterwards"

PARTS = {
    ".qweight": "GPTQ or AWQ",
    ".qzeros": "GPTQ or AWQ",
    ".g_idx": "GPTQ",
    ".weight_packed": "compressed-tensors",
    ".weight_zero_point": "compressed-tensors",
    ".weight_scale": "fp8 or int8",
    ".weight_scale_inv": "fp8",
    ".weight.absmax": "bitsandbytes",
    ".weight.quant_map": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".W_q": "HQQ",
    "_proj_blocks": "MXFP4",
    "_proj_scales": "MXFP4",
}
"""What quantisers store beside, or instead of, a weight: how its name ends → whose it is."""

CODES = {torch.int8, torch.uint8, torch.int16, torch.int32, torch.uint32}
"""Dtypes of two dimensions or more in which a `weight` is a table of codes; masks and ids are called otherwise."""


def check_quantised(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorSpec]) -> None:
    """Raise ModelError when the config asks for dequantising, or stored tensors are codes or what goes with them.

    The message names the method, the file, and the cure.
    """
    for key, found in _configured(config):
        raise ModelError(
            f"{folder / 'config.json'}: {key} says that the weights are quantised ({_method(found)}); {CURE}. "
            f"If they are not, remove {key} from config.json"
        )
    if (found := _stored(tensors)) is not None:
        spec, whose = found
        raise ModelError(f"{spec.file}: {spec.name} is of a quantised model ({whose}); {CURE}")


def check_gguf(folder: Path) -> None:
    """Raise ModelError when the folder, without weights of another kind, or the file is GGUF."""
    found = [folder] if folder.suffix == ".gguf" else sorted(folder.glob("*.gguf"))
    if found and not any(folder.glob("*.safetensors")):
        raise ModelError(f"{found[0]}: GGUF, the quantised form of llama.cpp; {CURE}")


def _configured(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """In the config or in that of one of its towers: key → what it says."""
    inside = [part for part in config.values() if isinstance(part, dict)]
    return [(key, part[key]) for part in (config, *inside) for key in KEYS if part.get(key) is not None]


def _method(found: Any) -> str:
    if not isinstance(found, dict):
        return repr(found)[:100]
    if found.get("quant_method"):
        return str(found["quant_method"])
    return next(
        (f"bitsandbytes, {key}" for key in ("load_in_4bit", "load_in_8bit") if found.get(key)), "no method named"
    )


def _stored(tensors: Mapping[str, TensorSpec]) -> tuple[TensorSpec, str] | None:
    """A tensor that is quantised, or goes with one that is, and by whose method."""
    for spec in tensors.values():
        if (dtype := str(spec.dtype).removeprefix("torch.")).startswith("float8"):
            return spec, f"fp8, stored as {dtype}"
    for ending, whose in PARTS.items():
        for name, spec in tensors.items():
            if name.endswith(ending):
                return spec, whose
    for name, spec in tensors.items():
        if spec.dtype in CODES and len(spec.shape) > 1 and name.endswith("weight"):
            return spec, f"stored as {str(spec.dtype).removeprefix('torch.')}"
    return None
