"""A checkpoint with all that is known of it without reading its weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from compress.checkpoint.header import TensorSpec
from compress.checkpoint.locate import CONFIG
from compress.checkpoint.open import Checkpoint
from compress.graph.families import Graph
from compress.graph.trace import trace
from compress.inputs.choose import inputs_of
from compress.inputs.kind import Inputs
from compress.model.blocks import left_over
from compress.model.build import empty_model, load_config, model_class
from compress.model.weights import Weights
from compress.tasks.choose import task_of
from compress.tasks.kind import Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def asked_for(model: nn.Module, config: PretrainedConfig, folder: Path) -> dict[str, TensorSpec]:
    """What a checkpoint of `model` stores, each tensor once, in the dtype that the config names (float32 without)."""
    floating, found, known = getattr(config, "dtype", None) or torch.float32, dict[str, TensorSpec](), set[int]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in known:
            known.add(id(tensor))
            dtype = floating if tensor.is_floating_point() else tensor.dtype
            found[name] = TensorSpec(name, folder / CONFIG, dtype, tuple(tensor.shape))
    return found


@dataclass(frozen=True)
class Model:
    """What a step prunes: the checkpoint, its config and class, the model on meta, what it reads, what it is for, its
    graph, where its tensors lie."""

    checkpoint: Checkpoint
    config: PretrainedConfig | None
    cls: type[nn.Module]
    module: nn.Module
    inputs: Inputs
    task: Task
    graph: Graph
    weights: Weights

    @property
    def left_behind(self) -> list[str]:
        """What no output gets of the checkpoint, a sentence each."""
        found = left_over(self.module, self.weights.unexpected)
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        strays = [f"left behind, as {self.cls.__name__} has no place for it: {found[0]}{more}"] if found else []
        return [*self.checkpoint.left_behind, *strays]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Model:
        """Read the config, build the model on meta and trace it.

        Of a config alone the checkpoint is given the tensors that the config asks for, none of which can be read.
        A module in memory has no config. Raises InputError or ModelError when the architecture is not understood or a
        tensor is missing.
        """
        if (held := checkpoint.architecture) is not None:
            config, made, model = None, held.cls, held.empty()
        else:
            config = load_config(checkpoint)
            made = model_class(config, checkpoint)
            model = empty_model(config, made)
        if checkpoint.config_only and config is not None:
            checkpoint = replace(checkpoint, tensors=asked_for(model, config, checkpoint.folder))
        weights = Weights(checkpoint, model)
        inputs = inputs_of(model, config)
        graph = trace(model, inputs.example()) if held is None else held.graph(model, inputs.example())
        return cls(weights.checkpoint, config, made, model, inputs, task_of(model), graph, weights)
