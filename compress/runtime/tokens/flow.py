"""A model that does without visual tokens: hooks around its parts, from the pictures to the last layer.

The tower and the weights are untouched. Before the decoder, and before those of its layers that a stage names, tokens
are scored and selected, hidden states get shorter, and masks and positions follow. What the decoder gives is put back
to the prompt's length: at a token that went stands what stands at the last one before it that stayed, as that is what
predicts the next. A cache remembers which columns it holds, so that decoding goes on with the right masks.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from compress.attention.call import Attention
from compress.attention.watch import watch
from compress.errors import ModelError
from compress.recipe.token_stage import Stage
from compress.runtime.tokens.memory import Memory, remembered
from compress.runtime.tokens.places.kind import Places, Seen
from compress.runtime.tokens.prefill import Prefill, moved_modules
from compress.runtime.tokens.resume import Resume
from compress.runtime.tokens.turn import Layer, Turn
from compress.runtime.tokens.wanted import Wanted

SEEN = "compress_seen"
"""The attribute of what `get_image_features` returns, which comes back to the model by way of `generate`."""


class Flow:
    """The hooks of one rule on one model. `counts`: `tokens` that came, and those `kept` after the last stage."""

    def __init__(self, places: Places, stages: Sequence[Stage], seed: int, counts: Counter[str]) -> None:
        self._places, self._seed, self._counts = places, seed, counts
        self._wanted = Wanted.of(stages, len(places.tower_layers))
        self._stages: dict[int, list[Stage]] = {}
        for stage in stages:
            self._stages.setdefault(stage.layer, []).append(stage)
        self._prefill: Prefill | None = None
        self._resume: Resume | None = None
        self._seen: Seen | None = None
        self._pictures: Any = None

    def attach(self, undo: ExitStack) -> None:
        """Have the model obey; whatever is changed in it is given to `undo`."""
        places, text = self._places, self._places.text
        core: Any = places.core
        pictures = core.get_image_features
        signature = inspect.signature(pictures)

        @functools.wraps(pictures)  # generate reads its signature, and calls it before the model
        def get_image_features(*args: Any, **kwargs: Any) -> Any:
            self._seen = Seen()
            output = pictures(*args, **kwargs)
            bound = signature.bind(*args, **kwargs).arguments
            self._seen.counts, self._seen.given = _counts(output), {**bound, **bound.get("kwargs", {})}
            setattr(output, SEEN, self._seen)
            self._pictures, self._seen = output, None
            return output

        core.get_image_features = get_image_features
        undo.callback(delattr, core, "get_image_features")
        places.watched(undo)
        undo.callback(core.register_forward_pre_hook(self._begin, with_kwargs=True).remove)
        undo.callback(core.register_forward_hook(self._end, always_call=True).remove)
        undo.callback(places.tower.register_forward_hook(self._tower_ran).remove)
        undo.callback(text.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
        undo.callback(text.register_forward_hook(self._leave).remove)
        first = min((layer for layer in self._stages if layer), default=len(places.layers))
        for number in range(len(places.layers)):
            if number < first and places.window(number) is None:
                continue
            hook = places.layers[number].register_forward_pre_hook(self._before(number), with_kwargs=True)
            undo.callback(hook.remove)
        for number in self._wanted.tower:
            undo.callback(watch(places.tower_layers[number], self._tower_attended(number)))
        for number in self._wanted.decoder:
            undo.callback(watch(places.layers[number], self._decoder_attended(number)))
        for number in self._wanted.modules:
            for kind, module in moved_modules(places.layers[number]).items():
                hook = module.register_forward_hook(self._module_ran(number, kind), with_kwargs=True)
                undo.callback(hook.remove)

    # The core's call

    def _begin(self, core: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._end()
        given = {**dict(zip(inspect.signature(core.forward).parameters, args, strict=False)), **kwargs}
        cache = given.get("past_key_values")
        ready = (given.get("mm_encoder_outputs") or {}).get("image")
        pictures = given.get("pixel_values") is not None or ready is not None
        memory = remembered(cache)
        if memory is None and not pictures:
            return None
        _refuse(core, cache, memory, pictures)
        if memory is not None:
            self._resume = Resume(self._places, memory)
            return (), self._resume.enter(given)
        if (ids := given.get("input_ids")) is None:
            raise ModelError("tokens: inputs_embeds do not say which tokens are visual; give input_ids")
        self._pictures = ready
        turn = Turn.of(ids == self._places.token_id, given.get("attention_mask"))
        self._prefill = Prefill(self._places, self._stages, self._seed, turn)
        return None

    def _end(self, *_: Any) -> None:
        self._prefill = self._resume = self._pictures = None

    # The tower

    def _tower_ran(self, tower: nn.Module, given: Any, output: Any) -> None:
        if self._seen is not None:
            self._seen.hidden = output.last_hidden_state.detach()

    def _tower_attended(self, number: int) -> Any:
        def tell(module: nn.Module, attention: Attention) -> None:
            if self._seen is not None:
                self._seen.attention[number].append(attention)

        return tell

    # The decoder

    def _decoder_attended(self, number: int) -> Any:
        def tell(module: nn.Module, attention: Attention) -> None:
            if self._prefill is not None:
                self._prefill.turn.decoder[number] = Layer(attention, self._prefill.slots)

        return tell

    def _module_ran(self, number: int, kind: str) -> Any:
        def tell(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            if self._prefill is not None:
                given = args[0] if args else kwargs["hidden_states"]
                gave = output[0] if isinstance(output, tuple) else output
                self._prefill.turn.moved[number, kind] = given.detach(), gave.detach(), self._prefill.slots

        return tell

    def _enter(self, text: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._prefill is None:
            return None
        seen = getattr(self._pictures, SEEN, None) or Seen(_counts(self._pictures))
        self._prefill.turn.arrange(seen, self._places.grids(seen))
        return args, self._prefill.enter(kwargs)

    def _before(self, number: int) -> Any:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
            if self._resume is not None:
                return args, self._resume.layer(number, args[0], kwargs)
            if self._prefill is None:
                return None
            states, kwargs = self._prefill.layer(number, args[0], kwargs)
            return (states, *args[1:]), kwargs

        return hook

    def _leave(self, text: nn.Module, given: Any, output: Any) -> Any:
        return None if self._prefill is None else self._prefill.leave(output, self._counts)


def _counts(output: Any) -> list[int]:
    """Tokens of each picture, from what a model's `get_image_features` returns."""
    return [len(picture) for picture in output.pooler_output]


def _refuse(core: nn.Module, cache: Any, memory: Memory | None, pictures: bool) -> None:
    """Raises ModelError for calls that would be wrong."""
    if core.training and torch.is_grad_enabled():
        raise ModelError("tokens: the model is in training mode, which the rule does not hold for; call model.eval()")
    if torch.compiler.is_compiling():
        raise ModelError("tokens: a compiled graph cannot leave out tokens; run the model without torch.compile")
    if getattr(cache, "is_compileable", False):
        raise ModelError(
            f"tokens: {type(cache).__name__} has one length for all layers, which tokens that go do not fit; use the "
            "default cache (DynamicCache)"
        )
    if pictures and (memory is not None or (cache is not None and cache.get_seq_length() > 0)):
        raise ModelError(
            "tokens: pictures come after what the cache has already; give the whole conversation at once, with a new "
            "cache"
        )
