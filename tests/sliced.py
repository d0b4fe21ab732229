"""Pruned models made without the pipeline: tensors sliced by a graph, and the dense model they must equal."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers as tf
import zoo
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compress.checkpoint.beside import MODELING_FILE
from compress.graph.families import Graph
from compress.graph.trace import trace
from compress.inputs.choose import inputs_of
from compress.model.build import empty_model
from compress.output_format.generic import auto_class, generic_plan
from compress.output_format.native import NativePlan, find_native

Kept = Mapping[str, np.ndarray]
SIZE = zoo.Size(layers=2)

VARIANTS = {
    **{name: (name, {}) for name in zoo.MODELS},
    "falcon_grouped": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_multi_head": ("falcon", {"multi_query": False}),
}


def word(family: str) -> str:
    """The last word of a family's name that is no number: `…self_attn.heads.2` → `heads`."""
    return next(part for part in reversed(family.split(".")) if not part.isdigit())


def architecture(name: str) -> tuple[type, Any]:
    """(class, configuration) of a tiny model: the zoo's, and variants of Falcon's attention."""
    base, changes = VARIANTS[name]
    found = zoo.ARCHITECTURES[base]
    size = zoo.TINY if base == "t5" else SIZE  # the first block of a stack stays: it holds the table of positions
    return found.cls, found.configuration(size, **changes)


@cache
def graph(name: str) -> Graph:
    cls, config = architecture(name)
    model = empty_model(config, cls)
    return trace(model, inputs_of(model).example())


@cache
def weights(name: str) -> dict[str, Tensor]:
    """Random weights big enough that a wrong slice shows, under the names that the graph uses."""
    cls, config = architecture(name)
    generator = torch.Generator().manual_seed(0)
    state = cls(config).state_dict()
    return {key: 0.2 * torch.randn(state[key].shape, generator=generator) for key in graph(name).layouts}


def dense(name: str) -> Any:
    """The full model with these weights."""
    cls, config = architecture(name)
    return filled(cls(config).eval(), weights(name))


def filled(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The model with these weights in it; biases that only the written architecture has are zero, and stay."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    ties = getattr(model, "all_tied_weights_keys", {})
    lost = set(missing) - set(ties) - set(ties.values())
    assert not unexpected and all(not model.get_parameter(key).any() for key in lost), (lost, unexpected)
    return model


def sliced(name: str, kept: Kept) -> dict[str, Tensor]:
    """The state of the pruned model: masks applied, layers renumbered."""
    found, numbers = graph(name), renumbering(name, kept)
    state = {}
    for tensor, value in weights(name).items():
        if found.block_of(tensor) in found.removed_blocks(kept):
            continue
        for dim, mask in found.masks(tensor, kept).items():
            value = value[(slice(None),) * dim + (torch.from_numpy(mask),)]
        block = found.block_of(tensor)
        if block is not None and (old := found.blocks[block]) in numbers:
            state[numbers[old] + tensor[len(old) :]] = value.contiguous()
        else:
            state[tensor] = value.contiguous()
    return state


def kept_layers(name: str, kept: Kept) -> dict[str, list[int]]:
    """Per list of blocks that loses some, the indices that stay."""
    found = graph(name)
    gone = {found.blocks[i] for i in found.removed_blocks(kept)}
    lists: dict[str, list[int]] = {}
    for block in found.blocks:
        stack, _, index = block.rpartition(".")
        if any(b.startswith(stack + ".") for b in gone):
            lists.setdefault(stack, []).extend([] if block in gone else [int(index)])
    return lists


def renumbering(name: str, kept: Kept) -> dict[str, str]:
    return {
        f"{stack}.{old}": f"{stack}.{new}"
        for stack, indices in kept_layers(name, kept).items()
        for new, old in enumerate(indices)
    }


def masked(name: str, kept: Kept, pruned: nn.Module) -> Any:
    """The full model with every slice of a removed group zero, and removed blocks passing their input on."""
    found, model = graph(name), dense(name)
    state = model.state_dict()
    for tensor in found.layouts:
        for dim, mask in found.masks(tensor, kept).items():
            state[tensor][(slice(None),) * dim + (torch.from_numpy(~mask),)] = 0
    for i in found.removed_blocks(kept):
        model.get_submodule(found.blocks[i]).register_forward_hook(_pass_on, with_kwargs=True)
    if "hidden" in kept:  # constants made of the hidden size are the written model's business, not the coupling's
        for module, other in _pairs(model, pruned):
            for own in ("embed_scale", "model_dim"):
                if hasattr(other, own):
                    setattr(module, own, getattr(other, own))
    return model


def _pairs(model: nn.Module, pruned: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    others = dict(pruned.named_modules())
    return ((module, others[key]) for key, module in model.named_modules() if key in others)


def _pass_on(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
    states = args[0] if args else kwargs["hidden_states"]
    return (states, *output[1:]) if isinstance(output, tuple) else states


class NormsOverKept(TorchFunctionMode):
    """Norms over a dimension of the hidden size take their statistics from the kept positions only."""

    def __init__(self, kept: np.ndarray) -> None:
        super().__init__()
        self.kept = torch.from_numpy(kept)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.layer_norm and args[0].shape[-1] == len(self.kept):
            x, weight, bias, eps = args[0], *(self._given(args, kwargs, i) for i in (2, 3, 4))
            with torch._C.DisableTorchFunction():
                part = x[..., self.kept]
                centred = x - part.mean(-1, keepdim=True)
                return centred / (part.var(-1, correction=0, keepdim=True) + eps).sqrt() * weight + bias
        if func is Tensor.mean and args[0].shape[-1] == len(self.kept) and args[1:2] == (-1,):
            with torch._C.DisableTorchFunction():
                return args[0][..., self.kept].mean(-1, **kwargs)
        return func(*args, **kwargs)

    @staticmethod
    def _given(args: tuple, kwargs: dict, place: int) -> Any:
        return args[place] if len(args) > place else kwargs[("weight", "bias", "eps")[place - 2]]


def answers(model: Any, kept: Kept, *, full: bool) -> Tensor:
    """Logits (or states) for fixed tokens; the full model's are cut down to the tokens or channels that are left."""
    vocabulary = kept.get("vocab", np.ones(96, bool))
    chosen = torch.randint(4, int(vocabulary.sum()), (2, 13), generator=torch.Generator().manual_seed(1))
    ids = torch.from_numpy(np.flatnonzero(vocabulary))[chosen] if full else chosen
    more = {"decoder_input_ids": ids.flip(1)} if model.config.is_encoder_decoder else {}
    norms = NormsOverKept(kept["hidden"]) if full and "hidden" in kept else contextlib.nullcontext()
    with torch.no_grad(), norms:
        output = model(input_ids=ids, **more)
    result = output["logits"] if "logits" in output else output["last_hidden_state"]
    return result[..., torch.from_numpy(vocabulary)] if full and "logits" in output else result


def open_pruned(name: str, kept: Kept, folder: Path, head_dim: int | None = None) -> tuple[str, Any]:
    """(how, model): the sliced weights saved and opened by stock transformers, without or with remote code.

    Raises ModelError when neither can hold them.
    """
    cls, config = architecture(name)
    state = sliced(name, kept)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    arguments = {"kept_layers": kept_layers(name, kept), "head_dim": head_dim}
    plan = find_native(config, cls, shapes, **arguments)
    how = "native"
    if isinstance(plan, NativePlan):
        state |= {key: torch.zeros(shape) for key, shape in plan.zeros.items()}
        assert not plan.renames
        reader, trust = getattr(tf, plan.architecture), {}
    else:
        plan = generic_plan(config, cls, shapes, **arguments)
        reader, trust, how = getattr(tf, auto_class(config, cls)), {"trust_remote_code": True}, "generic"
        shutil.copy(MODELING_FILE, folder)
    (folder / "config.json").write_text(json.dumps(plan.config))
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    model, info = reader.from_pretrained(folder, output_loading_info=True, **trust)
    assert not any(info.values()), info
    return how, model.eval()
