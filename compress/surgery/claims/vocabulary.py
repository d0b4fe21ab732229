"""Removed tokens: logits of those that stay are the input's, and both tokenizers cut text alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.console import track
from compress.data.tokens import load_tokenizer
from compress.errors import InputError, VerifyError
from compress.inputs.batch import Batch
from compress.model.build import runnable_model
from compress.model.model import Model
from compress.model.weights import Weights
from compress.surgery.claims.masked import LEAST, TIMES
from compress.surgery.edit import Written
from compress.surgery.take import take
from compress.surgery.verify.forward import output
from compress.surgery.verify.noise import apart
from compress.surgery.verify.shapes import check_untraced
from compress.tasks.tokens import IDS
from compress.tokenizer.file import NAME

FOREIGN = (
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Съешь же ещё этих мягких французских булок",
    "敏捷的棕色狐狸跳过懒狗。 いろはにほへと 다람쥐 헌 쳇바퀴",
    "نص حكيم له سر قاطع  עטלף אבק נס דרך  ยินดีต้อนรับ",
    "😀👩‍👩‍👧 ∑∫√ ½ € \u200b\ufeff \t\r\n   if x[0]==3.14e-7: return {'a': None}",
)
"""Text that no English corpus covers."""

DRAWN = 32
"""Texts of random characters."""


@dataclass(frozen=True)
class SameOnKept:
    """Every tensor is the input's, without the rows of tokens that went; given tokens that stay, the model computes
    what the input does for them; a text whose tokens all stay is cut into the same ones, and every text reads as
    before.

    `family` of tokens, `kept` bool `[size]`; `texts` gives those that the tokenizers are compared on, beside some in
    other scripts and of random characters.
    """

    family: str
    kept: np.ndarray
    texts: Callable[[], Sequence[str]]

    def prove(self, source: Model, written: Written) -> str:
        """Raises VerifyError where one of these does not hold."""
        self._check_tensors(source, written)
        said = self._check_outputs(source, written)
        rest = check_untraced(source, {self.family: self.kept}, written.checkpoint)
        return f"{said}{rest}; {self._check_text(source, written)}"

    def _check_tensors(self, source: Model, written: Written) -> None:
        kept, result = {self.family: self.kept}, Model.of(written.checkpoint)
        for name in track(source.weights.names(""), "verifying"):
            tensor = source.weights.read(name)
            for dim, mask in source.graph.masks(name, kept).items():
                tensor = take(tensor, dim, np.flatnonzero(mask))
            if not torch.equal(tensor, result.weights.read(name)):
                raise VerifyError(f"{name} is not the kept part of the input's")

    def _check_outputs(self, source: Model, written: Written) -> str:
        """Both models on tokens that stay, in the numbers of each."""
        places = torch.from_numpy(np.flatnonzero(self.kept))
        batch = source.inputs.check()
        new = self._among(source, batch)
        old = {name: places[value] if _holds_tokens(name) else value for name, value in new.items()}
        found, again = self._run(written.checkpoint, source, new, twice=True)
        (whole,) = self._run(source.checkpoint, source, old)
        if whole.shape[-1] == len(self.kept) and found.shape[-1] == len(places):
            whole = whole[..., places]
        if whole.shape != found.shape:
            raise VerifyError(f"the output is {list(found.shape)}, the input's for these tokens {list(whole.shape)}")
        tolerance = max(LEAST, TIMES * apart(again, found))
        off = apart(found, whole)
        if not off <= tolerance:
            raise VerifyError(
                f"on tokens that stay the output differs from the input's by {off:.1e} of its largest value (at most "
                f"{tolerance:.1e} is right)"
            )
        said = (
            f"tensors cut bit for bit; output on kept tokens equal to the input's to {off:.0e} (noise {tolerance:.0e})"
        )
        (other,) = self._run(written.checkpoint, source, self._among(source, batch, further=1))
        if apart(other, whole) <= tolerance:
            said += ", but so it is for other tokens: the check has no power"
        return said

    def _among(self, source: Model, batch: Batch, further: int = 0) -> Batch:
        """The batch's random tokens as new numbers of tokens that stay, `further` ones after them; those that stand for
        something else than text (padding, images) stay what they are."""
        reserved, places = torch.tensor(sorted(source.inputs.reserved), dtype=torch.long), np.flatnonzero(self.kept)
        own = torch.from_numpy(np.isin(places, reserved.numpy()))
        usable = (~own).nonzero().flatten() if not own.all() else torch.arange(len(places))
        new = torch.full((len(self.kept),), -1)
        new[torch.from_numpy(places)] = torch.arange(len(places))

        def one(value: Tensor) -> Tensor:
            held = torch.isin(value, reserved) & (new[value] >= 0)
            return torch.where(held, new[value], usable[(value + further) % len(usable)])

        return {name: one(value) if _holds_tokens(name) else value for name, value in batch.items()}

    def _run(self, checkpoint: Any, source: Model, batch: Batch, *, twice: bool = False) -> list[Tensor]:
        model = runnable_model(checkpoint)
        return output(model, Weights(checkpoint, model), source.graph.blocks, batch, lambda: None, twice=twice)

    def _check_text(self, source: Model, written: Written) -> str:
        """Both tokenizers on the same texts, as transformers load them and as tokenizers alone do."""
        try:
            texts, missing = list(self.texts()), ""
        except InputError as error:
            texts, missing = [], f" (not on the text that was counted: {error})"
        numbers = np.full(len(self.kept), -1)
        numbers[self.kept] = np.arange(self.kept.sum())
        before = after = same = 0
        everything = [*texts, *FOREIGN, *_drawn()]
        for one, other in zip(_tokenizers(source.checkpoint), _tokenizers(written.checkpoint), strict=True):
            for text in everything:
                old, new = one.encode(text), other.encode(text)
                mapped = numbers[np.array(old, np.int64)]
                before, after = before + len(old), after + len(new)
                if (mapped >= 0).all():
                    same += 1
                    if mapped.tolist() != new:
                        raise VerifyError(f"{text[:80]!r} is cut into other tokens, though all of its own stayed")
                if (read := other.decode(new)) != (wanted := one.decode(old)):
                    raise VerifyError(f"{text[:80]!r} now reads {read[:80]!r}, and {wanted[:80]!r} before")
        return (
            f"{len(everything)} texts read as before, {same // 2} of them from the very same tokens, all together "
            f"{after / max(before, 1) - 1:+.2%} tokens{missing}"
        )


def _holds_tokens(name: str) -> bool:
    """Of a part of a batch, whichever side it is given to."""
    return name.endswith(IDS)


@dataclass(frozen=True)
class _Tokenizer:
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]


def _tokenizers(checkpoint: Any) -> Iterator[_Tokenizer]:
    """The folder's tokenizer as transformers load it, then as its file says, without cutting to a length."""
    from tokenizers import Tokenizer

    loaded: Any = load_tokenizer(checkpoint)
    if loaded is None:
        raise VerifyError(f"{checkpoint.folder}: no tokenizer was written")
    yield _Tokenizer(
        lambda text: loaded.encode(text, verbose=False),
        lambda ids: loaded.decode(ids, clean_up_tokenization_spaces=False),
    )
    plain = Tokenizer.from_file(str(checkpoint.folder / NAME))
    plain.no_truncation()
    plain.no_padding()
    yield _Tokenizer(lambda text: plain.encode(text).ids, lambda ids: plain.decode(ids, skip_special_tokens=False))


def _drawn() -> Iterator[str]:
    """Random characters of all planes but surrogates, the same every time."""
    random = Random(0)
    for _ in range(DRAWN):
        points = (random.randrange(0x110000) if random.random() < 0.3 else random.randrange(0x250) for _ in range(24))
        yield "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
