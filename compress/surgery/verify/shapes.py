"""What needs no forward: shapes as the config asks, and parts that no tokens run as the input has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from compress.checkpoint.open import Checkpoint
from compress.errors import VerifyError
from compress.graph.names import Names
from compress.graph.untraced import listed
from compress.model.build import empty_model, load_config, model_class, runnable_model
from compress.model.model import Model
from compress.model.weights import Weights

Kept = Mapping[str, np.ndarray]


def check_places(pruned: Checkpoint, folder: Path) -> None:
    """Raises VerifyError where a stored tensor has no place in the model of config.json, and what `Weights` raises
    where it has another shape than its place."""
    config = load_config(pruned)
    weights = Weights(pruned, empty_model(config, model_class(config, pruned)))
    if weights.unexpected:
        raise VerifyError(f"{folder}: its config.json has no place for {weights.unexpected[0]}")


def check_untraced(source: Model, kept: Kept, pruned: Checkpoint) -> str:
    """What is to be said of the parts that no forward of these inputs runs: they must be the input's, bit for bit.

    Raises VerifyError.
    """
    names, graph = Names(source.graph, kept), source.graph
    left = {name: new for name in graph.untraced if (new := names.new(name)) is not None}
    if not left:
        return ""
    weights = Weights(pruned, runnable_model(pruned))
    for name, new in left.items():
        if not torch.equal(weights.read(new), source.weights.read(name)):
            raise VerifyError(f"{new}, which no forward runs, is not the input's {name}")
    return f"; {listed(graph.untraced[name] for name in left)}, which the forward does not run, bit for bit the input's"
