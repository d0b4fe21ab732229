"""Sound: waves and spectra, for encoders, recognisers with CTC, and encoder-decoders that write what is said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compress.data.cut import cut
from compress.data.reread import IGNORED, padded
from compress.data.speech import ear, fitted, recorded, spelled
from compress.data.tokens import load_tokenizer
from compress.data.vocabulary import longest, text_config
from compress.errors import InputError
from compress.inputs.ask import entries, main_input, options, takes
from compress.inputs.batch import LABELS, Batch
from compress.inputs.kind import Written
from compress.inputs.text import CHECKED, DECODER_IDS, ODD
from compress.inputs.tried import Tried, Way
from compress.recipe.part import Part
from compress.registry import inputs

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate

WAVES, SPECTRA = "input_values", "input_features"

BINS = (
    "input_size",
    "num_mel_bins",
    "input_feat_per_channel",
    "feature_projection_input_dim",
    "feature_size",
    "n_mels",
)
"""What configs call the number of a spectrum's bins."""

MASKS = "input_features_mask", "feature_attention_mask", "attention_mask", "padding_mask"
"""What forwards call the mask of the frames that are no padding."""

USUAL_BINS = 128, 80
"""Of a spectrum for a model whose config says of none."""

STEPS = 24
"""Steps of a model's own that a sample has where its length is free."""

SHORTEST = 400
"""Samples of a wave that one has at least."""

SAID = 4
"""Tokens that are said in random data."""


@inputs.add("audio")
class Audio(Tried):
    """Waves `[rows, samples]` or spectra `[rows, bins, frames]` (or `[rows, frames, bins]`), and tokens
    `[rows, length]` for the decoder where the model has one."""

    noun = "frames"
    data = Part("speech")

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that hear first."""
        return main_input(model) in (WAVES, SPECTRA) or _either(model)

    @property
    def tower(self) -> Any:
        """The part of the config that tells of tokens, where there are any."""
        return text_config(self.config) if self._writes else self.config

    def ways(self) -> Iterator[Way]:
        """As many samples as give 24 steps; spectra of as many frames as the model has places for. Masks come last."""
        config, name = self.config, self._name
        sizes = list(self._sizes(name))
        if not self._writes:
            yield from (Way({name: size}) for size, _ in sizes)
            masks = [mask for mask in MASKS if takes(self.model, mask)]
            for mask in masks:
                yield from (Way({name: size, mask: (steps,)}, masks=frozenset({mask})) for size, steps in sizes)
            return
        vocabulary = self.tower.vocab_size
        length = min(CHECKED, longest(config) or CHECKED, options(config, "max_target_positions") or CHECKED)
        yield from (Way({name: size, DECODER_IDS: (length,)}, {DECODER_IDS: vocabulary}) for size, _ in sizes)

    def _sizes(self, name: str) -> Iterator[tuple[tuple[int, ...], int]]:
        """Sizes of a sample, and how many samples or frames it then has."""
        config = self.config
        bins, frames, most = self._bins, options(config, "max_source_positions"), options(config, "max_length")
        stride = prod(options(config, "conv_stride") or options(config, "upsampling_ratios") or [320])
        count = max(stride * STEPS, SHORTEST)
        waves = [((count,), count), ((1, count), count)] if name == WAVES else []
        told = bool(options(config, "num_mel_bins"))
        yield from waves if not told else ()
        for wide in dict.fromkeys(filter(None, (bins, *USUAL_BINS, *entries(self.model)))):
            if frames:
                yield (wide, 2 * frames), 2 * frames
            if most and most > 20:
                yield (most, wide), most
            yield (4 * STEPS, wide), 4 * STEPS
            yield from (((wide, span), span) for span in spans(config))
        yield from waves if told else ()

    def odd(self, device: torch.device | str = "meta") -> Batch:
        """Three samples, and eleven tokens where there is a decoder: as many as no encoder has steps."""
        return {
            name: value[:, : ODD[1]] if name == DECODER_IDS else value for name, value in self.check(ODD[0]).items()
        }

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """Recordings as the checkpoint's feature extractor gives them, as long as the longest of them, and what is said
        where the model writes it; `calibrate.length` tokens of that at most."""
        if calibrate.template is not None:
            raise InputError(f"calibrate.template: {calibrate.template}: the model hears; leave it out")
        data = calibrate.data or self.data
        if getattr(data, "name", data) == "random":
            return cut(self._random(calibrate.samples, seed), calibrate.batch)
        hears = ear(checkpoint, self.config, self._bins if SPECTRA in self.way.sizes else None)
        if hears is None:
            raise InputError(
                f"{checkpoint.folder}: no preprocessor_config.json, and none belongs to {type(self.model).__name__}; "
                "put it there, or take data: random"
            )
        found = recorded(data, calibrate.samples, hears.sampling_rate, seed)
        waves = [wave for wave, _ in found]
        name = next(iter(self.way.sizes))
        heard = hears(waves, sampling_rate=hears.sampling_rate, padding=True, return_tensors="pt")[name].float()
        batch: Batch = {name: self._fitted(name, heard)}
        texts = [text for _, text in found if text is not None]
        if self._spells and len(texts) == len(found):
            batch |= self._labels(texts, calibrate.length, checkpoint)
        elif self._writes:
            raise InputError(f"calibrate.data: {data} does not say what is said, which the model's decoder is given")
        return cut(batch, calibrate.batch)

    def held_out(self, calibrated: Iterable[Part | str | None]) -> Part:
        """Sentences that calibration does not hear."""
        return Part("speech", {"split": "test"})

    def length(self, batch: Batch) -> int:
        """Samples of a wave, or frames of a spectrum."""
        name = next(iter(self.way.sizes))
        sizes, bins = batch[name].shape[1:], self._bins
        return sizes[-1] if len(sizes) == 1 or sizes[0] in (1, bins) else sizes[0]

    def meaningful(self, checkpoint: Checkpoint) -> bool:
        """Whether there is a feature extractor, and a tokenizer where the model writes."""
        hears = ear(checkpoint, self.config, None) is not None
        return hears and (not self._spells or load_tokenizer(checkpoint) is not None)

    def written(self, batch: Batch) -> Written | None:
        """A decoder's tokens."""
        able: Any = getattr(self.model, "can_generate", None)
        if not self._writes or able is None or not able() or DECODER_IDS not in batch:
            return None
        ids = batch[DECODER_IDS]
        return Written(ids, lambda count: {**batch, DECODER_IDS: ids[:, :count]}, int(ids[0, 0]))

    @property
    def _name(self) -> str:
        return WAVES if _either(self.model) else main_input(self.model) or WAVES

    @property
    def _bins(self) -> int | None:
        return options(self.config, *BINS)

    @property
    def _writes(self) -> bool:
        """Whether it has a decoder of tokens."""
        return takes(self.model, DECODER_IDS) and bool(getattr(self.config, "is_encoder_decoder", False))

    @property
    def _spells(self) -> bool:
        """Whether it puts out tokens."""
        return self._writes or "CTC" in type(self.model).__name__

    def _random(self, samples: int, seed: int) -> Batch:
        """Noise, and random tokens that are said."""
        batch = self.way.draw(samples, seed)
        if self._spells:
            generator = torch.Generator().manual_seed(seed)
            vocabulary = text_config(self.config).vocab_size
            batch[LABELS] = torch.randint(1, vocabulary, (samples, SAID), generator=generator)
            if self._writes:
                batch[LABELS] = batch[DECODER_IDS].roll(-1, 1)
        return batch

    def _fitted(self, name: str, heard: Tensor) -> Tensor:
        size = self.way.sizes[name]
        if len(size) == 1:
            return heard
        if size[0] == 1:
            return heard.unsqueeze(1) if heard.dim() == 2 else heard
        fixed = name == WAVES or options(self.config, "max_source_positions") == size[-1] // 2
        return fitted(heard, size) if fixed else heard

    def _labels(self, texts: list[str], length: int, checkpoint: Checkpoint) -> Batch:
        """The tokens as labels; for a decoder also as what it is given, one place later."""
        tokenizer = load_tokenizer(checkpoint)
        if tokenizer is None:
            raise InputError(
                f"{checkpoint.folder}: no tokenizer to spell what is said; put its files there, or take data: random"
            )
        rows = [row[:length] for row in spelled(texts, tokenizer)]
        if not self._writes:
            return {LABELS: padded(rows, IGNORED)[0]}
        start = getattr(self.config, "decoder_start_token_id", None)
        start = start if start is not None else self.config.pad_token_id or 0
        rows = [row[1:] if row[0] == start else row for row in rows]
        labels, filling = padded(rows, IGNORED)[0], self.config.pad_token_id or 0
        before = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, filling)
        return {LABELS: labels, DECODER_IDS: torch.cat([torch.full_like(labels[:, :1], start), before], 1)}


def spans(config: Any) -> list[int]:
    """Frames of a spectrum whose number is free: some, and as many as the windows of a model that takes whole ones."""
    window = options(config, "n_window")
    return [4 * STEPS, *([4 * window] if isinstance(window, int) else [])]


def _either(model: nn.Module) -> bool:
    """Whether a model takes waves or spectra, and calls both its inputs: any encoder in front of a decoder."""
    return main_input(model) == "inputs" and takes(model, WAVES, SPECTRA)
