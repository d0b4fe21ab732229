"""Text from a source as tokens, in sequences of equal length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compress.data.chat import Messages, in_template
from compress.data.vocabulary import longest, text_config
from compress.errors import InputError
from compress.recipe.part import Part
from compress.registry import sources

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate

DEFAULT = Part("docs")
"""What is calibrated on where no source is named."""

MAX_CHARS = 200_000_000
"""Characters of a source that are read at most, before they are shuffled."""


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase | None:
    """The checkpoint's tokenizer, None when it has none. Raises InputError when it is there but broken."""
    names = {file.name for file in checkpoint.side_files}
    if not names & {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt", "spiece.model"}:
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=checkpoint.trust_remote_code)
    except Exception as error:
        file = checkpoint.folder / "tokenizer_config.json"
        if f"{file.name}: auto_map" in checkpoint.code:
            raise InputError(
                f"{file}: the tokenizer needs code that comes with the checkpoint; read it, then pass "
                f"--trust-remote-code if you trust it"
            ) from None
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{checkpoint.folder}: the tokenizer cannot be loaded: {reason}") from error


def foreign_tokens(checkpoint: Checkpoint, config: PretrainedConfig) -> str | None:
    """What to say of a tokenizer with more tokens than the model: text that has one of those cannot be given to it."""
    tokenizer = load_tokenizer(checkpoint)
    last = max(tokenizer.get_vocab().values(), default=0) if tokenizer is not None else 0
    vocabulary = text_config(config).vocab_size if tokenizer is not None else 0
    if last < vocabulary or tokenizer is None:
        return None
    return (
        f"{checkpoint.folder}: the tokenizer's tokens go up to {last}, the model's vocabulary ends at "
        f"{vocabulary - 1}; text with such tokens is neither calibrated nor evaluated on: put the model's own "
        f"tokenizer there"
    )


def token_rows(
    calibrate: Calibrate,
    tokenizer: PreTrainedTokenizerBase | None,
    config: PretrainedConfig,
    seed: int = 0,
    *,
    parts: int = 1,
) -> Tensor:
    """`calibrate.samples` rows of tokens, int64 `[samples, parts · length]`.

    Texts are shuffled by `seed` and laid one behind the other; no part is padded, each has the special tokens its
    tokenizer puts around a text, or those of the chat template where `calibrate.template` asks for it.

    Raises InputError without a tokenizer (unless the source gives tokens), when the text is too short, when sequences
    are longer than the model's positions, and when the tokens are not of the model's vocabulary. Raises ModelError for
    a model without one.
    """
    vocabulary: int = text_config(config).vocab_size
    _check_length(calibrate.length, tokenizer, config)
    rows = torch.tensor(_rows(calibrate, tokenizer, config, seed, parts))
    if int(rows.max()) >= vocabulary:
        raise InputError(
            f"the tokenizer gives token {int(rows.max())}, the model's vocabulary ends at {vocabulary - 1}: "
            f"they do not belong together"
        )
    return rows


def texts(data: Any, seed: int = 0) -> list[str | Messages]:
    """The texts and conversations of `calibrate.data` (a part, a path or a hub id), shuffled by `seed`."""
    found, size = [], 0
    for text in _source(data):
        found.append(text)
        size += len(text) if isinstance(text, str) else sum(len(message["content"]) for message in text)
        if size > MAX_CHARS:
            break
    Random(seed).shuffle(found)
    return found


def corpus(calibrate: Calibrate, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> Iterator[str]:
    """All of the text that `token_rows` cuts its rows from, piece by piece in the same order; what lies beyond 200
    million characters is not read.

    Raises InputError for data that is no text, or cannot be had.
    """
    found = texts(calibrate.data or DEFAULT, seed)
    if calibrate.template == "chat":
        yield from in_template(tokenizer, found)
    else:
        yield from (f"{text}\n\n" for text in _plain(found))


def _source(data: Any) -> Iterable[str | Messages]:
    if not isinstance(data, str):
        if (given := sources.get(data.name).meta.gives) != "text":
            raise InputError(f"calibrate.data: {data.name} gives {given}, the model reads text; take another source")
        return data.bind(sources)()
    if Path(data).expanduser().exists():
        return sources.get("text").bind({"path": data})()
    if data in sources.names():
        return sources.get(data).bind({})()
    return sources.get("hub").bind({"name": data})()


def _rows(
    calibrate: Calibrate, tokenizer: PreTrainedTokenizerBase | None, config: PretrainedConfig, seed: int, parts: int
) -> list[list[int]]:
    """`[samples, parts · length]` tokens."""
    data = calibrate.data or DEFAULT
    name = data if isinstance(data, str) else data.name
    before, after = [], []
    if name in sources.names() and sources.get(name).meta.gives == "tokens":
        if calibrate.template is not None:
            raise InputError(f"calibrate.template: {calibrate.template}: {name} gives tokens, no text; leave it out")
        stream = (token for piece in sources.get(name).target(text_config(config).vocab_size, seed) for token in piece)
    elif tokenizer is None:
        raise InputError("the model has no tokenizer; put its files beside config.json, or use data: random")
    else:
        if calibrate.template is None:
            before, after = around(tokenizer)
        stream = (token for ids in tokens(tokenizer, corpus(calibrate, tokenizer, seed)) for token in ids)
    room = calibrate.length - len(before) - len(after)
    if room < 1:
        raise InputError(f"calibrate.length: {calibrate.length} leaves no room between the special tokens")
    rows = []
    for i in range(calibrate.samples):
        row = []
        for _ in range(parts):
            piece = list(islice(stream, room))
            if len(piece) < room:
                raise InputError(
                    f"calibrate.data: the text gives {i} sequences of {calibrate.length} tokens, "
                    f"calibrate.samples asks for {calibrate.samples}; ask for fewer, shorter ones, or give more text"
                )
            row += before + piece + after
        rows.append(row)
    return rows


def _plain(found: list[str | Messages]) -> Iterator[str]:
    """The texts. Raises InputError for a conversation."""
    for text in found:
        if not isinstance(text, str):
            raise InputError("calibrate.data: holds conversations; write `template: chat` under calibrate")
        yield text


def tokens(tokenizer: PreTrainedTokenizerBase, found: Iterator[str]) -> Iterator[list[int]]:
    """The tokens of each text, without those that the tokenizer puts around it."""
    while given := list(islice(found, 64)):
        yield from tokenizer(given, add_special_tokens=False, verbose=False)["input_ids"]  # pyright: ignore


def around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that go before and after a text."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])  # pyright: ignore
    full = list(tokenizer("a")["input_ids"])  # pyright: ignore
    for i in range(len(full) - len(bare) + 1):
        if full[i : i + len(bare)] == bare:
            return full[:i], full[i + len(bare) :]
    return [], []


def _check_length(length: int, tokenizer: PreTrainedTokenizerBase | None, config: PretrainedConfig) -> None:
    limits = [longest(config), getattr(tokenizer, "model_max_length", None)]
    most = min((limit for limit in limits if limit), default=length)
    if length > most:
        raise InputError(f"calibrate.length: {length} tokens are more than the model's {most} positions; set it lower")
