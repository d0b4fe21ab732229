"""Text, as tokens: decoders, encoders, encoder-decoders and masked language models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compress.data.cut import cut
from compress.data.labelled import labelled_batches
from compress.data.reread import IGNORED, Reader, labels, padded, reader
from compress.data.tokens import DEFAULT, foreign_tokens, load_tokenizer, token_rows
from compress.data.vocabulary import longest, text_config
from compress.errors import InputError
from compress.graph.example import Example
from compress.inputs.ask import main_input
from compress.inputs.batch import BYTES, COUNTED, LABELS, Batch
from compress.inputs.beside import beside
from compress.inputs.kind import Inputs, Written
from compress.recipe.part import Part
from compress.registry import inputs

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate

IDS, DECODER_IDS, MASK = "input_ids", "decoder_input_ids", "attention_mask"
TRACED, ODD = (2, 16), (3, 11)
"""Rows and tokens of what is traced, and of what sizes are told apart by."""

CHECKED = 16
"""Tokens that are verified by."""

MASKED = 0.15
"""Share of tokens that masked language models have to guess (Devlin et al. 2019)."""

OTHER, KEPT_BACK = Part("manuals"), Part("docs", {"split": "test"})
"""What quality is measured on: prose of another kind than `docs`, and what no calibration on `docs` sees."""


@inputs.add("text")
class Text(Inputs):
    """Token ids `[rows, length]`; an encoder-decoder is given those of both sides."""

    noun = "tokens"
    data = DEFAULT

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Of a model with several towers it is the text's ids that are read first."""
        return (main_input(model) or IDS) == IDS

    @property
    def tower(self) -> Any:
        """That of the tokens. Raises ModelError for a model without a vocabulary."""
        return text_config(self.config)

    def example(self) -> Example:
        """`[2, 16]` tokens; a model that keeps a cache does so."""
        ids = torch.zeros(TRACED, dtype=torch.long, device="meta")
        return Example(self._sides(ids), {"batch": (IDS, 0), "sequence": (IDS, 1)}, self._caches())

    def check(self, rows: int = 2, seed: int = 0) -> Batch:
        """Random tokens `[rows, 16]`, fewer where the model has not as many positions, and none of them padding.

        Raises ModelError for a model without a vocabulary.
        """
        generator = torch.Generator().manual_seed(seed)
        text = self.tower
        length = min(CHECKED, longest(self.config) or CHECKED)
        ids = torch.randint(0, text.vocab_size, (rows, length), generator=generator)
        pad = getattr(text, "pad_token_id", None)
        if pad is not None and text.vocab_size > 2:  # padding shifts some models' positions
            ids[ids == pad] = (pad + 1) % text.vocab_size
        return self._sides(ids)

    def odd(self, device: torch.device | str = "meta") -> Batch:
        """`[3, 11]` tokens."""
        return self._sides(torch.ones(ODD, dtype=torch.long, device=device))

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """Sequences of `calibrate.length` tokens; see `batches`."""
        found, key = batches(calibrate, load_tokenizer(checkpoint), self.config, seed)
        sides = (IDS, DECODER_IDS)
        return [{**one, **beside(self, {n: one[n] for n in sides if n in one})} for one in found], key

    def held_out(self, calibrated: Iterable[Part | str | None]) -> Part:
        """`manuals`, prose of another kind than `docs`; where that was calibrated on, what `docs` keeps back."""
        names = {data.name if isinstance(data, Part) else data for data in calibrated}
        return KEPT_BACK if OTHER.name in names else OTHER

    @property
    def reserved(self) -> frozenset[int]:
        """Padding."""
        pad = getattr(self.tower, "pad_token_id", None)
        return frozenset() if pad is None else frozenset({pad})

    def length(self, batch: Batch) -> int:
        """Tokens of a sequence; of an encoder-decoder whose encoder reads none those of the decoder."""
        return batch[IDS if IDS in batch else DECODER_IDS].shape[1]

    def longest(self, checkpoint: Checkpoint) -> int | None:
        """Tokens that the model's positions and its tokenizer allow."""
        limits = [longest(self.config), getattr(load_tokenizer(checkpoint), "model_max_length", None)]
        return int(min(found)) if (found := [limit for limit in limits if limit]) else None

    def meaningful(self, checkpoint: Checkpoint) -> bool:
        """Whether there is a tokenizer."""
        return load_tokenizer(checkpoint) is not None

    def labelled(self, file: Path | None, checkpoint: Checkpoint, *, samples: int, length: int) -> list[Batch]:
        """Texts of a .jsonl, cut to `length` tokens; see `compress.data.labelled`."""
        tokenizer = load_tokenizer(checkpoint)
        if tokenizer is None:
            raise InputError(f"{checkpoint.folder}: no tokenizer, which labelled texts need; put its files there")
        return labelled_batches(file, tokenizer, self.config.id2label, samples=samples, length=length)

    def reread(self, batches: list[Batch], own: Checkpoint, other: Checkpoint) -> list[Batch]:
        """The same texts in the tokens of `other`, each sample counted as many tokens as `own` has for it.

        Masked tokens are drawn anew, and count as what they are: two tokenizers have no such tokens in common.
        """
        read = reader(own, other)
        if read is None:
            return batches
        tokenizer, most = load_tokenizer(other), longest(self.config)
        return [self._reread(batch, read, tokenizer, most) for batch in batches]

    def _reread(self, batch: Batch, read: Reader, tokenizer: Any, most: int | None) -> Batch:
        masked, both = LABELS in batch and DECODER_IDS not in batch, DECODER_IDS in batch
        ids = torch.where(batch[LABELS] == IGNORED, batch[IDS], batch[LABELS]) if masked else batch[IDS]
        given = [read.row(row, whole=both) for row in ids.tolist()]
        filling = tokenizer.pad_token_id or 0
        made, mask = padded([text.ids for text in given], filling)
        if most is not None and made.shape[1] > most:
            raise InputError(
                f"a text of {ids.shape[1]} tokens has {made.shape[1]} of the other tokenizer, and the model {most} "
                "positions; measure on shorter ones"
            )
        found = {IDS: made, **({} if mask.all() else {MASK: mask})}
        if masked:
            drawn = _masked(made, tokenizer, self.config)
            return {**found, IDS: drawn[IDS], LABELS: drawn[LABELS].masked_fill(mask == 0, IGNORED)}
        told = given
        if both:
            told = [read.row(row, whole=True) for row in batch[LABELS].tolist()]
            found[LABELS], start = labels(told), read.token(int(batch[DECODER_IDS][0, 0]))
            before = found[LABELS][:, :-1]
            before = before.masked_fill(before == IGNORED, filling)  # behind a text's end nothing is predicted
            found[DECODER_IDS] = torch.cat([torch.full_like(before[:, :1], start), before], 1)
        else:
            found[LABELS] = labels(told)
        found[COUNTED] = torch.tensor([text.tokens for text in told])
        found[BYTES] = torch.tensor([text.bytes for text in told])
        return found

    def warning(self, checkpoint: Checkpoint) -> str | None:
        """Of a tokenizer that has tokens which the model has not."""
        return foreign_tokens(checkpoint, self.config)

    def written(self, batch: Batch) -> Written | None:
        """A decoder's tokens, where it keeps a cache by default."""
        able: Any = getattr(self.model, "can_generate", None)
        if able is None or not able() or not getattr(self.tower, "use_cache", True):
            return None
        side = DECODER_IDS if DECODER_IDS in batch else IDS
        ids = batch[side]

        def prompt(count: int) -> Batch:
            short = {**batch, side: ids[:, :count]}
            return {**short, MASK: torch.ones_like(short[IDS])}

        return Written(ids, prompt, int(ids[0, 0]) if side == DECODER_IDS else None)

    def _caches(self) -> dict[str, bool]:
        """That a model keeps a cache, where it does."""
        alone = not getattr(self.config, "is_encoder_decoder", False)  # an encoder would be told of a cache too
        return {"use_cache": True} if alone and getattr(self.config, "use_cache", False) else {}

    def _sides(self, ids: Tensor) -> Batch:
        both = getattr(self.config, "is_encoder_decoder", False)
        tokens = {IDS: ids, DECODER_IDS: ids} if both else {IDS: ids}
        return {**tokens, **beside(self, tokens)}


def batches(
    calibrate: Calibrate, tokenizer: PreTrainedTokenizerBase | None, config: PretrainedConfig, seed: int = 0
) -> tuple[list[Batch], str]:
    """`calibrate.samples` sequences as batches (name → int64 `[batch, length]`), and a key: the hash of the tokens.

    Encoder-decoders get as much again of the text as `labels` and, shifted, for their decoder. Masked language models
    get 15 % of tokens masked, and `labels` that are -100 elsewhere. Raises what `compress.data.tokens.token_rows` does.
    """
    decoder = bool(getattr(config, "is_encoder_decoder", False))
    rows = token_rows(calibrate, tokenizer, config, seed, parts=2 if decoder else 1)
    named = {IDS: rows[:, : calibrate.length]}
    if decoder:
        targets = rows[:, calibrate.length :]
        start = getattr(config, "decoder_start_token_id", None)
        first = torch.full_like(targets[:, :1], start if start is not None else config.pad_token_id or 0)
        named |= {DECODER_IDS: torch.cat([first, targets[:, :-1]], 1), LABELS: targets}
    elif any("MaskedLM" in name for name in config.architectures or ()):
        named = _masked(named[IDS], tokenizer, config, seed)
    return cut(named, calibrate.batch)


def _masked(ids: Tensor, tokenizer: PreTrainedTokenizerBase | None, config: PretrainedConfig, seed: int = 0) -> Batch:
    """Some tokens replaced by the mask token, or by random ones without a tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(ids.shape, generator=generator) < MASKED
    mask = getattr(tokenizer, "mask_token_id", None)
    tokens = text_config(config).vocab_size
    other = torch.randint(tokens, ids.shape, generator=generator) if mask is None else torch.tensor(mask)
    if tokenizer is not None:
        chosen &= ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen[:, ids.shape[1] // 2] = True  # a sample without one would have no loss
    return {IDS: torch.where(chosen, other, ids), LABELS: torch.where(chosen, ids, -100)}
