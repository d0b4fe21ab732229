"""Proof before the rename: what was written has the shapes of its config, and computes the masked dense model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from compress.calibrate.stream import Batch, Stream, Watch
from compress.checkpoint.model import empty_model, load_config, model_class, runnable_model, text_config
from compress.checkpoint.open import Checkpoint, open_checkpoint
from compress.checkpoint.weights import Weights
from compress.errors import CompressError, VerifyError
from compress.graph.untraced import listed
from compress.surgery.experts import Mixes, mixed_tensors
from compress.surgery.hidden_experts import hidden, hide_experts
from compress.surgery.names import Names
from compress.surgery.opening import Opening, bias_name, repaired
from compress.surgery.probe import Branches
from compress.surgery.source import Source
from compress.surgery.take import take

Kept = Mapping[str, np.ndarray]
TOLERANCE = 1e-3
"""Largest difference of two outputs, as a share of the largest magnitude in the masked dense one."""


def verify(
    source: Source,
    kept: Kept,
    opening: Opening,
    folder: Path,
    *,
    mended: bool = False,
    mixes: Mixes | None = None,
    rows: int = 2,
    length: int = 16,
    seed: int = 0,
) -> str:
    """Check the written folder against its config and the masked dense model; returns what was found, for the report.

    Every tensor that no repair touched (`mended`: there was one) and that is not put together of several experts' must
    be the input's, sliced, bit for bit. The masked dense model's routers do not see the experts that are gone.
    Both models are streamed block by block in float32 over `[rows, length]` random tokens. Where the residual width
    was cut only shapes and finiteness are checked: a norm averages over fewer channels then, which no mask imitates.
    What a model given tokens does not run (a vision tower) is compared bit for bit, and named.
    Raises VerifyError, and ModelError for a model that takes no tokens.
    """
    batch = _tokens(source.config, rows, length, seed)
    try:
        pruned = open_checkpoint(folder, trust_remote_code=source.checkpoint.trust_remote_code)
        _check_shapes(pruned, folder)
        names = Names(source.graph, kept)
        blocks = [new for block in source.graph.blocks if (new := names.new(block)) is not None]
        found = _output(pruned, runnable_model(pruned), blocks, batch)
    except CompressError as error:
        raise VerifyError(f"what was written cannot be opened: {error}") from error
    if not torch.isfinite(found).all():
        raise VerifyError("the pruned model's output is not finite")
    rest = _check_untraced(source, kept, pruned)
    if any(source.graph.families[name].kind == "hidden" for name in kept):
        return f"verified: shapes and finite output (a narrower residual stream has no masked equal){rest}"
    if (
        masked := _masked_output(source, kept, opening, pruned, batch, _changed(source, kept, mended, mixes or {}))
    ) is None:
        return (
            "verified: shapes and finite output (these blocks pass on more than hidden states, so none can be masked)"
            + rest
        )
    if masked.shape != found.shape:
        raise VerifyError(f"the output is {list(found.shape)}, the masked dense model's {list(masked.shape)}")
    apart = float((found - masked).abs().max() / masked.abs().max().clamp_min(1e-12))
    if not apart <= TOLERANCE:
        raise VerifyError(
            f"the pruned model's output differs from the masked dense model's by {apart:.1e} of its largest value "
            f"(at most {TOLERANCE:g} is right)"
        )
    return f"verified: shapes, and output equal to the masked dense model's to {apart:.0e}{rest}"


def _check_shapes(pruned: Checkpoint, folder: Path) -> None:
    config = load_config(pruned)
    weights = Weights(pruned, empty_model(config, model_class(config, pruned)))
    if weights.unexpected:
        raise VerifyError(f"{folder}: its config.json has no place for {weights.unexpected[0]}")
    for name in weights.names(""):
        wanted = tuple(weights.current(name).shape)
        for disk in () if weights.pieces(name) else weights.disk_names(name):  # pieces are checked as they are read
            if tuple(shape := pruned.tensors[disk].shape) != wanted:
                raise VerifyError(f"{folder}: {disk} is {list(shape)}, its config.json asks for {list(wanted)}")


def _check_untraced(source: Source, kept: Kept, pruned: Checkpoint) -> str:
    """What is to be said of the parts that no forward of tokens runs: they must be the input's, bit for bit."""
    names, graph = Names(source.graph, kept), source.graph
    left = {name: new for name in graph.untraced if (new := names.new(name)) is not None}
    if not left:
        return ""
    weights = Weights(pruned, runnable_model(pruned))
    for name, new in left.items():
        if not torch.equal(weights.read(new), source.weights.read(name)):
            raise VerifyError(f"{new}, which no forward of tokens runs, is not the input's {name}")
    return f"; {listed(graph.untraced[name] for name in left)}, which tokens alone do not run, bit for bit the input's"


class Scattered(Weights):
    """The tensors of the pruned model in the shapes of the dense one, zeros where something was removed."""

    def __init__(self, source: Source, kept: Kept, pruned: Weights, model: nn.Module, changed: set[str]) -> None:
        super().__init__(source.checkpoint, model)
        self._changed = changed  # by a repair
        self._graph, self._kept, self._pruned = source.graph, kept, pruned
        self._names = Names(source.graph, kept)

    def read(self, name: str, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        first = self.first_name(name)
        new = self._names.new(first)
        if new is None:
            return torch.zeros(self.current(first).shape, dtype=dtype or self.dtype(first), device=device)
        tensor = self._pruned.read(new, dtype, device)
        whole = super().read(first, dtype, device)
        for dim, mask in self._graph.masks(first, self._kept).items():
            tensor = spread(tensor, dim, mask)
            whole = spread(take(whole, dim, np.flatnonzero(mask)), dim, mask)
        if first not in self._changed and not torch.equal(tensor, whole):
            raise VerifyError(f"{new} is not the kept part of the input's {first}")
        return hidden(self._graph, first, self._kept, tensor)


def spread(tensor: Tensor, dim: int, mask: np.ndarray) -> Tensor:
    """The slices of `tensor` along `dim` at the kept positions of `mask`, zeros between."""
    shape = list(tensor.shape)
    shape[dim] = len(mask)
    whole = tensor.new_zeros(shape)
    return whole.index_copy_(dim, torch.from_numpy(np.flatnonzero(mask)).to(tensor.device), tensor)


def _masked_output(
    source: Source, kept: Kept, opening: Opening, pruned: Checkpoint, batch: Batch, changed: set[str]
) -> Tensor | None:
    """The masked dense model's output; None where blocks are gone whose result is more than hidden states."""
    names, weights = Names(source.graph, kept), Weights(pruned, runnable_model(pruned))
    model = runnable_model(source.checkpoint)
    if names.removed and not _plain_blocks(source, batch):
        return None
    gone = source.graph.removed_blocks(kept)
    for block in names.removed:
        model.get_submodule(block).forward = _identity
    for family in (source.graph.families[name] for name in kept):
        if family.kind == "experts" and source.graph.block_of(family.members[0].tensor) not in gone:
            hide_experts(model, source.graph, family, kept[family.name])
    scattered = Scattered(source, kept, weights, model, changed)
    for bias in opening.biases:
        if (new := names.new(bias)) is not None:
            weight = bias.removesuffix("bias") + "weight"
            vector = weights.read(new, torch.float32)
            rows = source.graph.masks(weight, kept).get(1 - repaired(source, kept)[weight].dim)
            vector = vector if rows is None else spread(vector, 0, rows)
            if vector.any():
                model.get_submodule(bias.removesuffix(".bias")).register_forward_hook(_adding(vector))
    return _output(source.checkpoint, model, source.graph.blocks, batch, scattered)


def _changed(source: Source, kept: Kept, mended: bool, mixes: Mixes) -> set[str]:
    """Tensors that are not slices of the input's."""
    repairs = {other for name in repaired(source, kept) for other in (name, bias_name(name))} if mended else set()
    return repairs | set(mixed_tensors(source.graph, mixes))


def _adding(vector: Tensor) -> Any:
    return lambda module, args, output: output + vector


def _identity(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden_states


def _plain_blocks(source: Source, batch: Batch) -> bool:
    """Whether blocks return their hidden states alone, seen in a forward on meta."""
    seen: list[bool] = []
    hooks = [
        source.model.get_submodule(block).register_forward_hook(
            lambda module, args, output: seen.append(isinstance(output, Tensor))
        )
        for block in dict.fromkeys(source.graph.blocks)
    ]
    try:
        with torch.no_grad(), Branches():
            source.model(**{name: torch.empty_like(value, device="meta") for name, value in batch.items()})
    finally:
        for hook in hooks:
            hook.remove()
    return bool(seen) and all(seen)


def _output(
    checkpoint: Checkpoint, model: nn.Module, blocks: Any, batch: Batch, weights: Weights | None = None
) -> Tensor:
    """Logits, or the last hidden state, of one streamed forward."""
    outputs: list[Tensor] = []

    def end(output: Any, batch: Batch) -> None:
        logits = getattr(output, "logits", None)
        outputs.append((logits if logits is not None else output[0]).float())

    Stream(model, weights or Weights(checkpoint, model), blocks, Watch(end=end)).run([batch])
    return outputs[0]


def _tokens(config: PretrainedConfig, rows: int, length: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    text = text_config(config)
    length = min(length, getattr(text, "max_position_embeddings", None) or length)
    ids = torch.randint(0, text.vocab_size, (rows, length), generator=generator)
    pad = getattr(text, "pad_token_id", None)
    if pad is not None and text.vocab_size > 2:  # padding shifts some models' positions
        ids[ids == pad] = (pad + 1) % text.vocab_size
    return (
        {"input_ids": ids, "decoder_input_ids": ids}
        if getattr(config, "is_encoder_decoder", False)
        else {"input_ids": ids}
    )
