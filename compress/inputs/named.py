"""Whatever a forward's docstring describes: states of a robot, embeddings, latents of a codec."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from compress.data.cut import cut
from compress.errors import InputError
from compress.inputs.ask import main_input, needs, options, takes
from compress.inputs.batch import LABELS, Batch
from compress.inputs.described import Said, described, sizes_of
from compress.inputs.patching import wants_patches
from compress.inputs.tried import Tried, Way
from compress.recipe.part import Part
from compress.registry import inputs

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate

OTHERS = re.compile(
    r"(decoder_)?input_ids|pixel_values(_videos)?|input_(values|features)|inputs|\w+_mask|target_sizes|"
    r"(past|future)_(values|time_features)|static_\w+"
)
"""What the other kinds of inputs give."""

LENGTHS = 16, 128
"""Positions of a sample whose length is free."""


@inputs.add("named")
class Named(Tried):
    """Noise for every argument that the forward needs, of the sizes that its docstring and the config say."""

    noun = "positions"
    data = Part("random")

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that need something which no other kind gives, all of it described."""
        if wants_patches(model) or takes(model, "input_ids"):
            return False
        needed, main = set(needs(model)), main_input(model)
        wanted = needed | {main} if main in described(model) else needed
        return not all(map(OTHERS.fullmatch, wanted)) and needed <= described(model).keys()

    def ways(self) -> Iterator[Way]:
        """All that is needed or not called optional, and what an encoder has made besides. Masks hide nothing, and
        nothing is padding."""
        told, wanted = described(self.model), needs(self.model)
        least = [name for name, said in told.items() if name != LABELS and (name in wanted or not said.optional)]
        more = [name for name, said in told.items() if name not in least and name.endswith("encoder_hidden_states")]
        for length in dict.fromkeys((*LENGTHS, options(self.config, "patch_length") or LENGTHS[0])):
            for names in dict.fromkeys((tuple(least), (*least, *more))):
                yield from self._ways({name: told[name] for name in names}, length)

    def _ways(self, told: Mapping[str, Said], length: int) -> Iterator[Way]:
        """With free sizes of `length`; one number that a sample has also with a dimension of its own, and images also
        all of one square."""
        sizes: dict[str, tuple[int, ...]] = {}
        for name, said in told.items():
            if (size := sizes_of(said, self.config, length, encoder=name.startswith("encoder_"))) is not None:
                sizes[name] = size
        if not sizes or not sizes.keys() >= set(needs(self.model)):
            return
        masks = frozenset(name for name, size in sizes.items() if "mask" in name and len(size) == 1)
        ones = frozenset(name for name in sizes if "mask" in name) - masks
        below = {name: 1 if "padding" in name else 2 for name, said in told.items() if said.whole}
        yield Way(sizes, below, ones, masks)
        if () in sizes.values():
            yield Way({name: size or (1,) for name, size in sizes.items()}, below, ones, masks)
        sides = {side for size in sizes.values() if len(size) == 3 for side in size[1:]}
        if len(sides) > 1:
            square = (min(sides),) * 2
            alike = {name: (size[0], *square) if len(size) == 3 else size for name, size in sizes.items()}
            yield Way(alike, below, ones, masks)

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """Noise; `calibrate.length` means nothing here."""
        if calibrate.template is not None:
            raise InputError(f"calibrate.template: {calibrate.template}: the model reads no text; leave it out")
        if getattr(data := calibrate.data or self.data, "name", data) != "random":
            raise InputError(
                f"calibrate.data: {data}: the model reads {' and '.join(self.way.sizes)}; take random, or put samples "
                "into example_inputs.npz beside config.json"
            )
        return cut(self.way.draw(calibrate.samples, seed), calibrate.batch)

    def held_out(self, calibrated: Iterable[Part | str | None]) -> Part:
        """Other noise than what is calibrated on."""
        return self.data

    def length(self, batch: Batch) -> int:
        """Positions of the first argument, one where it has none."""
        tensor = next(iter(batch.values()))
        return tensor.shape[1] if tensor.dim() > 2 else 1

    def meaningful(self, checkpoint: Checkpoint) -> bool:
        """No: there is only noise."""
        return False
