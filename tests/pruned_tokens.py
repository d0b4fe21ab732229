"""Models that obey rules about visual tokens for a while, and which tokens they kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from compress import runtime
from compress.recipe.token_stage import Stage
from compress.recipe.tokens import preset
from compress.runtime.tokens.expand import expanded
from compress.runtime.tokens.find import check, places_of


@contextmanager
def obeying(model: Any, *stages: dict[str, Any], seed: int = 0) -> Iterator[runtime.Attached]:
    """Stages as a rule has them."""
    model.config.compress = {"version": 1, "rules": [{"kind": "tokens", "stages": list(stages), "seed": seed}]}
    try:
        with runtime.attach(model) as attached:
            yield attached
    finally:
        del model.config.compress


def stages_of(name: str, model: Any, keep: float | None = None) -> list[dict[str, Any]]:
    """A preset's stages for a model, as the step writes them."""
    asked, own = preset(name).asked
    places = places_of(model)
    made = expanded(asked, own if keep is None else keep, places)
    check(places, made)
    return [stage.written() for stage in made]


def layer_of(stage: dict[str, Any]) -> int:
    return Stage.model_validate(stage).layer


def kept(output: Any, layer: int, row: int = 0) -> list[int]:
    """The columns of a prompt that a layer holds."""
    columns: Tensor = output.past_key_values.compress_tokens.at(layer).slots.columns[row]
    return columns[columns >= 0].tolist()


def gone(output: Any, given: dict[str, Tensor], layers: int) -> list[Tensor]:
    """Of each layer, which columns of the prompts it does without, bool `[batch, length]`."""
    found = []
    for layer in range(layers):
        held = output.past_key_values.compress_tokens.at(layer).slots.columns
        left = torch.zeros(held.shape[0], given["input_ids"].shape[1] + 1, dtype=torch.bool)
        found.append(~left.scatter(1, held.masked_fill(held < 0, left.shape[1] - 1), True)[:, :-1])
    return found


@contextmanager
def hiding(model: Any, columns: list[Tensor]) -> Iterator[None]:
    """All tokens run; in each layer no others look at its hidden `columns`, bool `[batch, length]`, now and later."""
    layers = places_of(model).layers

    def before(number: int) -> Any:
        def hook(layer: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
            batch, new = args[0].shape[:2]
            cache = kwargs.get("past_key_values")
            keys = new + (0 if cache is None else cache.get_seq_length(number))
            mask = kwargs.get("attention_mask")
            if mask is None:
                mask = torch.ones(batch, 1, new, keys, dtype=torch.bool).tril(keys - new)
            hidden = torch.zeros(batch, keys, dtype=torch.bool)
            own = columns[number].repeat_interleave(batch // len(columns[number]), 0)  # beams stand one after another
            hidden[:, : own.shape[1]] = own[:, :keys]
            hidden = hidden[:, None, None] & ~hidden[:, None, keys - new :, None]  # those hidden may do as they like
            low = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
            hidden = hidden[..., -mask.shape[-1] :]  # of a sliding window the last ones are there
            return args, {**kwargs, "attention_mask": mask.masked_fill(hidden, low)}

        return hook

    hooks = [layer.register_forward_pre_hook(before(number), with_kwargs=True) for number, layer in enumerate(layers)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
