"""Text, as tokens: decoders, encoders, encoder-decoders and masked language models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compress.data.batches import batches, foreign_tokens, load_tokenizer
from compress.data.vocabulary import longest, text_config
from compress.graph.example import Example
from compress.inputs.batch import Batch
from compress.inputs.kind import Inputs, Written
from compress.recipe.part import Part
from compress.registry import inputs

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate

IDS, DECODER_IDS = "input_ids", "decoder_input_ids"
TRACED = (2, 16)
CHECKED = 16
ODD = (3, 11)

OTHER, KEPT_BACK = Part("manuals"), Part("docs", {"split": "test"})


@inputs.add("text")
class Text(Inputs):
    """Token ids `[rows, length]`; an encoder-decoder is given those of both sides."""

    noun = "tokens"
    data = Part("docs")

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Of a model with several towers it is the text's ids that are read first."""
        return getattr(model, "main_input_name", IDS) == IDS

    def example(self) -> Example:
        """`[2, 16]` tokens; a model that keeps a cache does so."""
        ids = torch.zeros(TRACED, dtype=torch.long, device="meta")
        caches = {"use_cache": True} if getattr(self.config, "use_cache", False) else {}
        return Example(self._both_sides(ids), {"batch": (IDS, 0), "sequence": (IDS, 1)}, caches)

    def check(self, rows: int = 2, seed: int = 0) -> Batch:
        """Random tokens `[rows, 16]`, fewer where the model has not as many positions, and none of them padding.

        Raises ModelError for a model without a vocabulary.
        """
        generator = torch.Generator().manual_seed(seed)
        text = text_config(self.config)
        length = min(CHECKED, longest(self.config) or CHECKED)
        ids = torch.randint(0, text.vocab_size, (rows, length), generator=generator)
        pad = getattr(text, "pad_token_id", None)
        if pad is not None and text.vocab_size > 2:  # padding shifts some models' positions
            ids[ids == pad] = (pad + 1) % text.vocab_size
        return self._both_sides(ids)

    def odd(self, device: torch.device | str = "meta") -> Batch:
        """`[3, 11]` tokens."""
        return self._both_sides(torch.ones(ODD, dtype=torch.long, device=device))

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """Sequences of `calibrate.length` tokens; see `compress.data.batches`."""
        return batches(calibrate, load_tokenizer(checkpoint), self.config, seed)

    def held_out(self, calibrated: Iterable[Part | str]) -> Part:
        """`manuals`, prose of another kind than `docs`; where that was calibrated on, what `docs` keeps back."""
        names = {data if isinstance(data, str) else data.name for data in calibrated}
        return KEPT_BACK if OTHER.name in names else OTHER

    def length(self, batch: Batch) -> int:
        """Tokens of a sequence."""
        return batch[IDS].shape[1]

    def longest(self, checkpoint: Checkpoint) -> int | None:
        """Tokens that the model's positions and its tokenizer allow."""
        limits = [longest(self.config), getattr(load_tokenizer(checkpoint), "model_max_length", None)]
        return int(min(found)) if (found := [limit for limit in limits if limit]) else None

    def meaningful(self, checkpoint: Checkpoint) -> bool:
        """Whether there is a tokenizer."""
        return load_tokenizer(checkpoint) is not None

    def warning(self, checkpoint: Checkpoint) -> str | None:
        """Of a tokenizer that has tokens which the model has not."""
        return foreign_tokens(checkpoint, self.config)

    def written(self, batch: Batch) -> Written | None:
        """A decoder's tokens, where it keeps a cache by default."""
        able: Any = getattr(self.model, "can_generate", None)
        if able is None or not able() or not getattr(text_config(self.config), "use_cache", True):
            return None
        side = DECODER_IDS if DECODER_IDS in batch else IDS
        ids = batch[side]

        def prompt(count: int) -> Batch:
            short = {**batch, side: ids[:, :count]}
            return {**short, "attention_mask": torch.ones_like(short[IDS])}

        return Written(ids, prompt, int(ids[0, 0]) if side == DECODER_IDS else None)

    def _both_sides(self, ids: Tensor) -> Batch:
        both = getattr(self.config, "is_encoder_decoder", False)
        return {IDS: ids, DECODER_IDS: ids} if both else {IDS: ids}
