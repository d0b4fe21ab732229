"""Text that comes with something else, for which some of its tokens stand or which the model reads beside it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from compress.data.reread import IGNORED
from compress.data.tokens import around, load_tokenizer
from compress.data.vocabulary import longest
from compress.errors import InputError, ModelError
from compress.graph.example import Example
from compress.inputs.ask import answer, on_meta, options, takes, width
from compress.inputs.batch import LABELS, Batch, given, plain
from compress.inputs.kind import Written
from compress.inputs.placed import Layout, Placed
from compress.inputs.text import CHECKED, DECODER_IDS, IDS, MASK, ODD, TRACED, Text
from compress.recipe.part import Part

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint

MOST_DRAWN = 10_000
"""Tokens among which random ones are drawn."""

QUESTION = "qformer_input_ids"
"""What a model that reads the text twice is given of it beside what is written: the text without the medium."""

SEEN = "image_attention_mask"
"""Which tokens see which images, `[rows, length, images]`."""

PLACES = "image_embeds_position_mask"
"""Which tokens stand for an image, `[rows, length]`, where no token of its own does."""

LEAST = 8
"""Tokens of text that a sample has at least: with fewer there is little to predict."""


_asked: dict[tuple[type, str, bool], Placed | str] = {}  # asking is a forward, and models are asked again and again
_numbers: dict[tuple[type, bool], int] = {}  # which of a class's layouts it takes


class Accompanied(Text):
    """Token ids `[rows, length]`, of which some stand for a `medium`, and what the model takes for that.

    Which layout the model takes is asked of it on the meta device. A model that takes none is one of text alone: what
    text does not run stays whole.
    """

    medium: ClassVar[str]
    """As it is called in the names of the config and of the model's methods: `image`."""

    main: ClassVar[str]
    """The forward's argument."""

    source: ClassVar[Part]
    """What is calibrated on by default, where the model takes the medium."""

    kept_back: ClassVar[Part]
    """What quality is measured on by default then."""

    @property
    def data(self) -> Part:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The source to calibrate on where a recipe names none."""
        return Text.data if self.placed() is None else self.source

    def held_out(self, calibrated: Iterable[Part | str | None]) -> Part:
        """What calibration does not see."""
        return super().held_out(calibrated) if self.placed() is None else self.kept_back

    @abstractmethod
    def layouts(self, small: bool) -> Iterator[Layout]:
        """The ways that the forward's signature leaves open, the likeliest first; `small` where sizes are free."""

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that take both."""
        return takes(model, cls.main) and (takes(model, IDS) or takes(model, DECODER_IDS))

    def example(self) -> Example:
        """Two samples, and 16 tokens of text behind what stands for them."""
        placed = self.placed()
        if placed is None:
            return super().example()
        batch = self._batch(placed, *TRACED, seed=0)
        side = IDS if IDS in batch else DECODER_IDS
        return Example(given(batch), {"batch": (side, 0), "sequence": (side, 1)}, self._caches())

    def check(self, rows: int = 2, seed: int = 0) -> Batch:
        """Noise, and as many random tokens of text as there is room for, 16 at most."""
        placed = self.placed()
        return super().check(rows, seed) if placed is None else self._batch(placed, rows, CHECKED, seed)

    def odd(self, device: torch.device | str = "meta") -> Batch:
        """Three samples with eleven tokens of text. They are real, as the forward looks at them."""
        placed = self.placed()
        return super().odd(device) if placed is None else self._batch(placed, *ODD, seed=0)

    def warning(self, checkpoint: Checkpoint) -> str | None:
        """Of a model that could not be given the medium, and what `Text` warns of."""
        if self.placed() is None:
            return (
                f"{checkpoint.folder}: no way was found to give {type(self.model).__name__} {self.main} "
                f"({self._ask(small=True)}); it is given text alone, and what that does not run stays whole"
            )
        return super().warning(checkpoint)

    def written(self, batch: Batch) -> Written | None:
        """The text's tokens, with a cache."""
        found = super().written(batch)
        if found is None or self.main not in given(batch):
            return found
        if getattr(self.model, "main_input_name", IDS) == self.main:  # such a one writes behind images in its own ways
            return None
        side = DECODER_IDS if DECODER_IDS in batch else IDS
        length = batch[side].shape[1]

        def prompt(count: int) -> Batch:
            along = {
                n for n, x in batch.items() if n == SEEN or (x.shape[1:] == (length,) and not x.is_floating_point())
            }
            short = {n: x[:, :count] if n in along else x for n, x in batch.items() if n != LABELS}
            return {**short, MASK: torch.ones_like(short[IDS])} if IDS in short else short

        return Written(found.tokens, prompt, found.start)

    def placed(self, *, small: bool = True) -> Placed | None:
        """The first layout with which the model's forward runs; None where there is none."""
        found = self._ask(small=small)
        return None if isinstance(found, str) else found

    def _ask(self, *, small: bool) -> Placed | str:
        """The layout, or why there is none."""
        key = type(self.model), self.config.to_json_string(), small
        if key not in _asked:
            _asked[key] = self._find(small)
        return _asked[key]

    def _find(self, small: bool) -> Placed | str:
        """The first layout with which the forward runs. A model whose like was asked before takes the same one."""
        model, token, reasons = on_meta(self.model), self._token(), list[str]()
        layouts = [(layout, masked) for masked in (False, True) for layout in self.layouts(small)]
        known = _numbers.get((type(self.model), small), len(layouts))
        order = [number for number in (known, *range(len(layouts))) if number < len(layouts)]
        for tried, number in enumerate(order):
            try:
                layout, masked = layouts[number]
                stand = self._standing(model, layout) if token is not None else self._places
                placed = Placed(layout, stand, token, masked)
                if number != known or tried:
                    answer(model, self._batch(placed, 2, LEAST, seed=0))
                _numbers[type(self.model), small] = number
                return placed
            except ModelError as error:
                reasons.append(str(error))
        return "; ".join(dict.fromkeys(reasons)) if reasons else "its forward takes none that is known"

    def _standing(self, model: nn.Module, layout: Layout) -> int:
        """How many tokens of the text stand for one sample: as many as the model makes feature vectors of it."""
        methods = [found for owner in (getattr(model, "model", None), model) if (found := self._features(owner))]
        if not methods:
            return 0
        named = set(signature(methods[0]).parameters)  # that of the inner model; the outer one's may only pass them on
        laid = {QUESTION: self.random_text(2, LEAST, 0), **layout.lay(_noise(layout, 2, 0))}
        made = answer(model, {name: value for name, value in laid.items() if plain(name) in named}, methods[0])
        pooled = getattr(made, "pooler_output", None)
        vectors, _ = width(made if pooled is None else pooled)
        return vectors // 2

    @property
    def _places(self) -> int:
        """How many tokens are overwritten where a mask says which."""
        return options(self.config, "latent_query_num") or 0 if takes(self.model, PLACES) else 0

    def _features(self, owner: Any) -> Any:
        return getattr(owner, f"get_{self.medium}_features", None)

    def _token(self) -> int | None:
        """The token that stands for the medium, None where none does."""
        names = (f"{self.medium}_token_id", f"{self.medium}_token_index")
        return next((found for name in names if (found := getattr(self.config, name, None)) is not None), None)

    def _batch(self, placed: Placed, rows: int, length: int, seed: int) -> Batch:
        """Noise, and `length` random tokens of text, fewer where the model has not as many positions."""
        room = (longest(self.config) or math.inf) - placed.stand - 1
        text = self.random_text(rows, int(min(length, room)) + 1, seed)
        return self.together(placed, _noise(placed.layout, rows, seed), text, before=1)

    @property
    def reserved(self) -> frozenset[int]:
        """All that configs name: padding, images, the end."""
        return frozenset(_special(self.config))

    def random_text(self, rows: int, length: int, seed: int) -> Tensor:
        """Random tokens `[rows, length]`, none of them one with a meaning of its own."""
        vocabulary, reserved = self.tower.vocab_size, self.reserved
        usable = [token for token in range(min(vocabulary, MOST_DRAWN)) if token not in reserved] or [0]
        generator = torch.Generator().manual_seed(seed)
        return torch.tensor(usable)[torch.randint(len(usable), (rows, length), generator=generator)]

    def together(self, placed: Placed, samples: Tensor, text: Tensor, *, before: int = 0) -> Batch:
        """The forward's tensors for samples `[rows, *size]` and their text `[rows, length]`, `before` tokens of which
        stand in front of those that stand for the sample. Only text is predicted: the labels say so."""
        rows = len(text)
        held = torch.full((rows, placed.stand), placed.token or 0)
        ids = torch.cat([text[:, :before], held, text[:, before:]], 1)
        labels = torch.cat([text[:, :before], torch.full_like(held, IGNORED), text[:, before:]], 1)
        found = {name: value for name, value in self._sides(ids).items() if takes(self.model, name)}
        if takes(self.model, "mm_token_type_ids"):
            found["mm_token_type_ids"] = (labels == IGNORED).long()
        if takes(self.model, QUESTION):
            found[QUESTION] = text
        if takes(self.model, PLACES):
            found[PLACES] = (labels == IGNORED).long()
        if placed.masked:
            found[MASK] = torch.ones_like(ids)
        if takes(self.model, SEEN):
            found[SEEN] = torch.ones(*ids.shape, 1, dtype=torch.long)
        return {**found, **placed.layout.lay(samples)}

    def told(self, batch: Batch, placed: Placed, text: Tensor, before: int) -> Batch:
        """What `together` gave, with labels: the text `[rows, length]`, IGNORED where the medium stands. A decoder
        behind an encoder is given the text one place later."""
        if DECODER_IDS in batch:
            start = getattr(self.config, "decoder_start_token_id", None)
            first = torch.full_like(text[:, :1], start if start is not None else self.tower.pad_token_id or 0)
            return {**batch, DECODER_IDS: torch.cat([first, text[:, :-1]], 1), LABELS: text}
        held = torch.full((len(text), placed.stand), IGNORED)
        return {**batch, LABELS: torch.cat([text[:, :before], held, text[:, before:]], 1)}

    def text_rows(self, texts: list[str], length: int, checkpoint: Checkpoint) -> tuple[Tensor, int]:
        """Texts as tokens of one length, int64 `[texts, length]`, as long as the shortest of them and `length` allow,
        and how many special tokens begin each.

        Raises InputError for a text of less than 8 tokens, and tokens that the model has not.
        """
        tokenizer = load_tokenizer(checkpoint)
        assert tokenizer is not None  # else data is random
        before, after = around(tokenizer) if self._token() is None else (around(tokenizer)[0], [])
        made = [list(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]  # pyright: ignore
        shortest = min(range(len(made)), key=lambda i: len(made[i]))
        room = min(len(made[shortest]), length)
        if most := longest(self.config):
            room = min(room, most - len(before) - len(after))
        if len(made[shortest]) < LEAST:
            raise InputError(
                f"calibrate.data: the text {texts[shortest]!r} has {len(made[shortest])} tokens; give {LEAST} at least"
            )
        if room < 1:
            raise InputError(f"calibrate.length: {length} leaves no room between the special tokens")
        rows = torch.tensor([[*before, *ids[:room], *after] for ids in made])
        if int(rows.max()) >= self.tower.vocab_size:
            raise InputError(
                f"the tokenizer gives token {int(rows.max())}, the model's vocabulary ends at "
                f"{self.tower.vocab_size - 1}: they do not belong together"
            )
        return rows, len(before)


def _noise(layout: Layout, rows: int, seed: int) -> Tensor:
    return torch.randn(rows, *layout.size, generator=torch.Generator().manual_seed(seed))


def _special(config: Any) -> set[int]:
    """Tokens that a config names, its own and those of the configs in it: of padding, images, the end."""
    found: set[int] = set()
    for name, value in config.to_dict().items():
        if isinstance(value, dict):
            part = options(config, name)
            found |= _special(part) if hasattr(part, "to_dict") else set()
        elif name.endswith(("_token_id", "_token_index")):
            found |= {value} if isinstance(value, int) else set(value or ()) if isinstance(value, list) else set()
    return found
