"""Quantised checkpoints: named, and refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bad_inputs.case import Case, config, edit_json, weights

CURE = "unquantised original"
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
AWQ = {"quant_method": "awq", "bits": 4, "version": "gemm"}
FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
PACKED = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
METHODS: list[tuple[str, dict[str, Any]]] = [
    ("gptq", GPTQ),
    ("awq", AWQ),
    ("bitsandbytes", FOUR_BITS),
    ("fp8", {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    ("compressed-tensors", PACKED),
    ("hqq", {"quant_method": "hqq"}),
    ("aqlm", {"quant_method": "aqlm"}),
    ("quanto", {"quant_method": "quanto", "weights": "int8"}),
    ("torchao", {"quant_method": "torchao"}),
    ("mxfp4", {"quant_method": "mxfp4"}),
    ("bitnet", {"quant_method": "bitnet"}),
    ("nosuch", {"quant_method": "nosuch"}),
]


def _only_config(name: str, found: Any, *says: str, key: str = "quantization_config", code: int = 3) -> Case:
    """Ordinary weights beside a config that says they are none."""
    says = ("config.json", key, CURE, f"remove {key}", *says) if code else ("wrote out",)
    return Case(name, says, partial(config, **{key: found}), code=code)


def _gptq(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        stem, weight = name.removesuffix("weight"), tensors.pop(name)
        tensors[stem + "qweight"] = torch.zeros(weight.shape[1] // 8, weight.shape[0], dtype=torch.int32)
        tensors[stem + "qzeros"] = torch.zeros(1, weight.shape[0] // 8, dtype=torch.int32)
        tensors[stem + "scales"] = torch.ones(1, weight.shape[0], dtype=torch.float16)
        tensors[stem + "g_idx"] = torch.zeros(weight.shape[1], dtype=torch.int32)


def _awq(tensors: dict[str, Tensor]) -> None:
    _gptq(tensors)
    for name in [name for name in tensors if name.endswith("g_idx")]:
        del tensors[name]


def _bits(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        count = tensors[name].numel()
        tensors[name] = torch.zeros(count // 2, 1, dtype=torch.uint8)
        tensors[name + ".absmax"] = torch.ones(count // 64)
        tensors[name + ".quant_map"] = torch.ones(16)
        tensors[name + ".quant_state.bitsandbytes__nf4"] = torch.zeros(80, dtype=torch.uint8)


def _eight_bits(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        rows = len(tensors[name])
        tensors[name] = tensors[name].to(torch.int8)
        tensors[name.removesuffix("weight") + "SCB"] = torch.ones(rows)


def _scaled(dtype: torch.dtype, ending: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("_proj.weight")]:
            tensors[name] = tensors[name].to(dtype)
            tensors[name + ending] = torch.ones(())

    return change


def _packed(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        rows, columns = tensors.pop(name).shape
        tensors[name + "_packed"] = torch.zeros(rows, columns // 8, dtype=torch.int32)
        tensors[name + "_scale"] = torch.ones(rows, 1)
        tensors[name + "_shape"] = torch.tensor([rows, columns])


def _hqq(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        tensors[name.removesuffix("weight") + "W_q"] = tensors.pop(name).to(torch.uint8)


def _stored(name: str, change: Callable[[dict[str, Tensor]], None], *says: str, **found: Any) -> list[Case]:
    """Real layouts, with the config that belongs to them and without one."""

    def prepare(folder: Path, **more: Any) -> None:
        weights(folder, change)
        config(folder, **more)

    bare = Case(f"{name}, no word in the config", ("model.safetensors", CURE, *says), prepare, code=3)
    if not found:
        return [bare]
    method = next(iter(found.values()))["quant_method"]
    full = Case(f"{name}, as it is published", ("config.json", CURE, method), partial(prepare, **found), code=3)
    return [full, bare]


def _gguf(folder: Path) -> None:
    (folder / "base/model.safetensors").unlink()
    (folder / "base/model-Q4_K_M.gguf").write_bytes(b"GGUF" + bytes(100))


CASES = [
    *(_only_config(f"{name} in the config alone", found, name) for name, found in METHODS),
    *_stored("GPTQ", _gptq, "GPTQ", quantization_config=GPTQ),
    *_stored("AWQ", _awq, "AWQ", quantization_config=AWQ),
    *_stored("bitsandbytes nf4", _bits, quantization_config=FOUR_BITS),
    *_stored("bitsandbytes int8", _eight_bits, quantization_config={"quant_method": "bitsandbytes",
                                                                    "load_in_8bit": True}),
    *_stored("fp8", _scaled(torch.float8_e4m3fn, "_scale_inv"), "float8_e4m3fn"),
    *_stored("int8 with a scale", _scaled(torch.int8, "_scale")),
    *_stored("compressed-tensors, packed", _packed, "compressed-tensors", quantization_config=PACKED),
    *_stored("HQQ", _hqq, "HQQ"),
    _only_config("bitsandbytes of old, no method named", {"load_in_8bit": True}, "bitsandbytes"),
    _only_config("an empty quantization_config", {}, "no method named"),
    _only_config("a quantization_config of no object", "gptq", "gptq"),
    _only_config("a quantization_config that is null", None, code=0),
    _only_config("a compression_config", PACKED, "compressed-tensors", key="compression_config"),
    Case("inside the config of a tower", ("config.json", "quantization_config", "awq", CURE),
         partial(config, text_config={"quantization_config": AWQ}), code=3),
    Case("GGUF in a folder", ("model-Q4_K_M.gguf", "GGUF", CURE), _gguf, code=3),
    Case("GGUF as a file", ("model-Q4_K_M.gguf", "GGUF", CURE), _gguf, "m.yaml base/model-Q4_K_M.gguf out", 3),
    Case("GGUF beside ordinary weights", ("wrote out",), lambda folder: (folder / "base/x.gguf").touch(), code=0),
    *(
        Case(f"gptq, {command.split()[0]}", ("config.json", "gptq", CURE), partial(config, quantization_config=GPTQ),
             command, 3)
        for command in ("inspect base", "plan m.yaml base", "eval base --data text.txt", "export base -o out",
                        "compare m.yaml base -o out --no-latency", "w.yaml base out")
    ),
    Case("a GPTQ base of a delta", ("tuned", "config.json", "gptq", CURE),
         lambda folder: edit_json(_tuned(folder) / "config.json", quantization_config=GPTQ), "d.yaml tuned out", 3),
]  # fmt: skip


def _tuned(folder: Path) -> Path:
    import shutil

    (folder / "d.yaml").write_text("steps:\n  - {prune: delta, base: base, by: dare, remove: 90%}\n")
    return shutil.copytree(folder / "base", folder / "tuned")
