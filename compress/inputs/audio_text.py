"""Sound and text together: models that write about what they hear, some of whose tokens stand for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compress.data.cut import cut
from compress.data.speech import ear, fitted, recorded
from compress.errors import InputError
from compress.inputs.accompanied import Accompanied
from compress.inputs.ask import needs, options, takes
from compress.inputs.audio import BINS, MASKS, SHORTEST, SPECTRA, STEPS, USUAL_BINS, WAVES, spans
from compress.inputs.batch import Batch
from compress.inputs.layout import PIXELS
from compress.inputs.placed import Layout
from compress.inputs.text import IDS
from compress.recipe.part import Part
from compress.registry import inputs

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate

TOWERS = "audio_config", "encoder_config"
"""What configs call the part that tells of sound."""

TEXT_MASK = "attention_mask"
"""Here it says what of the text is no padding."""
LONGER, FUSED = "is_longer", 4
"""Which recordings are longer than what is heard at once, and as how many views those are given."""

ASKED = "Transcribe the speech: {}"
"""Behind a recording stands a question, and what is said."""


@dataclass(frozen=True)
class Spectra:
    """Spectra of the `size` (bins, frames), or (frames, bins) where the frames are its dimension `along` 0.

    `mask` is the argument that says which frames are no padding; "" where none is given. `views` of each, which are all
    the same, have a dimension of their own; 0: there is no such dimension.
    """

    size: tuple[int, int]
    along: int
    mask: str
    views: int = 0

    def lay(self, samples: Tensor) -> Batch:
        """The forward's tensors for spectra `[rows, *size]`; nothing of them is padding."""
        masks = {self.mask: torch.ones(len(samples), samples.shape[1 + self.along], dtype=torch.long)}
        seen = samples[:, None].expand(-1, self.views, -1, -1).contiguous() if self.views else samples
        return {SPECTRA: seen, **(masks if self.mask else {})}


@dataclass(frozen=True)
class Fused(Spectra):
    """The same, of which none is longer than what is heard at once."""

    def lay(self, samples: Tensor) -> Batch:
        return {**super().lay(samples), LONGER: torch.zeros(len(samples), 1, dtype=torch.bool)}


@dataclass(frozen=True)
class Waves:
    """Waves of the `size` (channels, samples)."""

    size: tuple[int, int]

    def lay(self, samples: Tensor) -> Batch:
        """The forward's tensors for waves `[rows, *size]`."""
        return {WAVES: samples}


@inputs.add("audio_text")
class AudioText(Accompanied):
    """A spectrum for each text, and token ids `[rows, length]`, some of which stand for the steps that it makes."""

    medium, main = "audio", SPECTRA
    source, kept_back = Part("speech"), Part("speech", {"split": "test"})

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that take both, and no images."""
        return super().fits(model, config) and not takes(model, PIXELS)

    def layouts(self, small: bool) -> Iterator[Layout]:
        """Of as many frames as the model has places for, else of some; either way round, with a mask and without."""
        tower, config = self._ears, self.config
        bins = options(tower, *BINS) or options(config, *BINS) or USUAL_BINS[0]
        places = options(tower, "max_source_positions")
        sizes = [((bins, 2 * places), 1)] if places else []
        sizes += [*(((bins, count), 1) for count in spans(tower)), ((4 * STEPS, bins), 0)]
        if takes(self.model, LONGER):
            yield from (Fused((4 * STEPS, bins), 0, "", views) for views in (1, FUSED))
        masks = [name for name in MASKS if name != TEXT_MASK and takes(self.model, name)][:1]
        yield from (Spectra(size, along, mask) for size, along in sizes for mask in [*masks, ""])

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """Recordings with what is said; `calibrate.length` tokens of that at most."""
        placed = self.placed(small=False) or self.placed()
        if placed is None:
            return super().batches(calibrate, checkpoint, seed)
        if calibrate.template is not None:
            raise InputError(f"calibrate.template: {calibrate.template}: the model hears too; leave it out")
        data, size = calibrate.data or self.source, placed.layout.size
        if getattr(data, "name", data) == "random":
            generator = torch.Generator().manual_seed(seed)
            heard = torch.randn(calibrate.samples, *size, generator=generator)
            rows, before = self.random_text(calibrate.samples, calibrate.length, seed), 0
        else:
            heard, texts = self._heard(data, calibrate.samples, checkpoint, placed.layout, seed)
            rows, before = self.text_rows(texts, calibrate.length, checkpoint)
        return cut(self.told(self.together(placed, heard, rows, before=before), placed, rows, before), calibrate.batch)

    def _heard(
        self, data: Part | str, samples: int, checkpoint: Checkpoint, layout: Layout, seed: int
    ) -> tuple[Tensor, list[str]]:
        """Spectra `[samples, *size]` and what is said in them."""
        assert isinstance(layout, Spectra)
        hears = ear(checkpoint, self.config, layout.size[1 - layout.along])
        if hears is None:
            raise InputError(
                f"{checkpoint.folder}: no preprocessor_config.json, and none belongs to {type(self.model).__name__}; "
                "put it there, or take data: random"
            )
        found = recorded(data, samples, hears.sampling_rate, seed)
        texts = [ASKED.format(text) for _, text in found if text is not None]
        if len(texts) < len(found):
            raise InputError(f"calibrate.data: {data} does not say what is said, which the model is given as text")
        waves = [wave for wave, _ in found]
        made = hears(waves, sampling_rate=hears.sampling_rate, padding=True, return_tensors="pt")[SPECTRA].float()
        return fitted(made, layout.size), texts

    @property
    def _ears(self) -> Any:
        """The part of the config that tells of sound."""
        return next((part for name in TOWERS if (part := getattr(self.config, name, None)) is not None), self.config)


@inputs.add("audio_wave_text")
class WaveText(AudioText):
    """A wave for each text, and token ids `[rows, length]`."""

    main = WAVES

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that need both: others of text take waves only to continue them."""
        return {IDS, WAVES} <= set(needs(model))

    def layouts(self, small: bool) -> Iterator[Layout]:
        """As many samples as give 24 steps, with a dimension for channels."""
        strides = options(self.config, "conv_stride", "downsampling_ratios", "upsampling_ratios") or [320]
        yield Waves((1, max(STEPS * prod(strides), SHORTEST)))

    def _heard(
        self, data: Part | str, samples: int, checkpoint: Checkpoint, layout: Layout, seed: int
    ) -> tuple[Tensor, list[str]]:
        raise InputError(f"calibrate.data: {data}: the model reads waves beside text; take data: random")
