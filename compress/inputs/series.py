"""Series of numbers over time, of which models predict how they go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from compress.data.cut import cut
from compress.data.series import waves
from compress.errors import InputError
from compress.inputs.ask import takes
from compress.inputs.batch import Batch
from compress.inputs.tried import Tried, Way
from compress.recipe.part import Part
from compress.registry import inputs

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate

PAST, FUTURE = "past_values", "future_values"


@inputs.add("series")
class Series(Tried):
    """Past values `[rows, length, channels]` (or `[rows, length]` of one channel), what is known of the time, and the
    values that follow."""

    noun = "points"
    data = Part("random")

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that read past values first."""
        return getattr(model, "main_input_name", None) == PAST

    def ways(self) -> Iterator[Way]:
        """With as many channels as the config says, and everything beside them that the forward knows."""
        config = self.config
        past = config.context_length + max(getattr(config, "lags_sequence", None) or [0])
        future = getattr(config, "prediction_length", 1)
        channels = getattr(config, "num_input_channels", None) or getattr(config, "input_size", 1)
        many = (channels,) if channels > 1 or hasattr(config, "num_input_channels") else ()
        known = getattr(config, "num_time_features", 0) + getattr(config, "num_dynamic_real_features", 0)
        classes = getattr(config, "num_static_categorical_features", 0)
        sizes: dict[str, tuple[int, ...]] = {
            PAST: (past, *many),
            "past_time_features": (past, known),
            "past_observed_mask": (past, *many),
            "static_categorical_features": (classes,),
            "static_real_features": (getattr(config, "num_static_real_features", 0),),
            FUTURE: (future, *many),
            "future_time_features": (future, known),
        }
        taken = {
            name: size for name, size in sizes.items() if takes(self.model, name) and (0 not in size or "time" in name)
        }
        below = {"static_categorical_features": min(getattr(config, "cardinality", None) or [1])}
        ones = frozenset({"past_observed_mask"})
        yield Way(taken, below, ones)
        yield Way({name: size for name, size in taken.items() if name != FUTURE}, below, ones)

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """Sums of waves with noise; `calibrate.length` means nothing here."""
        if calibrate.template is not None:
            raise InputError(f"calibrate.template: {calibrate.template}: the model reads series; leave it out")
        if getattr(data := calibrate.data or self.data, "name", data) != "random":
            raise InputError(
                f"calibrate.data: {data}: series of numbers are generated; take random, or put samples "
                "into example_inputs.npz beside config.json"
            )
        drawn = self.way.draw(calibrate.samples, seed)
        past = drawn[PAST]
        after = drawn[FUTURE].shape[1] if FUTURE in drawn else 0
        made = waves(calibrate.samples, past.shape[1] + after, past.shape[2:], seed)
        drawn[PAST] = made[:, : past.shape[1]].contiguous()
        if after:
            drawn[FUTURE] = made[:, past.shape[1] :].contiguous()
        return cut(drawn, calibrate.batch)

    def held_out(self, calibrated: Iterable[Part | str | None]) -> Part:
        """Other series than those that are calibrated on."""
        return self.data

    def length(self, batch: Batch) -> int:
        """Points of a series."""
        return batch[PAST].shape[1]
