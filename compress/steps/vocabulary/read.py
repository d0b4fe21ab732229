"""What the vocabulary's step reads beside the weights: the tokenizer, how often text uses each token, named tokens."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.checkpoint.open import WHOLE
from compress.console import track
from compress.data.tokens import DEFAULT, corpus, load_tokenizer, tokens
from compress.errors import BudgetError, ConfigAloneError, InputError
from compress.execution.context import Context
from compress.graph.ends import embeddings
from compress.graph.families import Family
from compress.model.model import Model
from compress.registry import sources
from compress.tokenizer.beside import named_beside, tokenizer_file
from compress.tokenizer.file import TokenizerFile
from compress.tokenizer.named import Named, implied

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXTS = 4096
"""How many are counted at a time."""


def vocabulary(source: Model) -> Family:
    """The family of the model's tokens. Raises BudgetError, saying why, where they cannot be removed."""
    found = [family for family in source.graph.families.values() if family.kind == "vocab"]
    if len(found) != 1:
        several = f"has {len(found)} vocabularies ({', '.join(one.name for one in found)})"
        raise BudgetError(f"nothing can be removed: the model {several if found else 'reads no tokens'}")
    (family,) = found
    if family.pinned:
        raise BudgetError(f"nothing can be removed: the model's vocab cannot be pruned: {family.pinned}")
    members = {member.tensor for member in family.members}
    for end in ("input", "output"):
        weight: Any = getattr(embeddings(source.module, end), "weight", None)
        names = [name for name, one in source.module.named_parameters(remove_duplicate=False) if one is weight]
        if names and not members.intersection(source.graph.shared.get(name, name) for name in names):
            raise BudgetError(
                f"nothing can be removed: {names[0]} has {len(weight)} rows and the vocabulary {family.size}: which of "
                "them are the same tokens is not known"
            )
    return family


def read_tokenizer(source: Model) -> tuple[TokenizerFile, PreTrainedTokenizerBase]:
    """The checkpoint's tokenizer.json, and the tokenizer as transformers load it; both number tokens alike.

    Raises InputError where there is none, they differ, or it has tokens that the model has not, and ConfigAloneError of
    a config alone.
    """
    checkpoint = source.checkpoint
    if checkpoint.config_only:
        raise ConfigAloneError(f"{checkpoint.folder}: no tokenizer is known of a config alone; {WHOLE}")
    file = tokenizer_file(checkpoint.folder, checkpoint.side_files)
    loaded = load_tokenizer(checkpoint)
    if loaded is None or not getattr(loaded, "is_fast", False):
        raise InputError(f"{checkpoint.folder}: transformers do not load {file.path.name} as it is; save it again")
    for token, number in loaded.get_vocab().items():
        if (known := file.ids.get(token, "nothing")) != number:
            raise InputError(
                f"{file.path}: transformers load {token!r} as {number}, and the file says {known} of it; save the "
                "tokenizer again with save_pretrained"
            )
    size, last = vocabulary(source).size, max(file.ids.values())
    if last >= size:
        raise InputError(
            f"{file.path}: tokens go up to {last}, the model's vocabulary ends at {size - 1}; put the model's own "
            "tokenizer there"
        )
    return file, loaded


def count_tokens(context: Context, tokenizer: PreTrainedTokenizerBase, rows: int) -> tuple[np.ndarray, int]:
    """How often the calibration text, all of it, uses each token, int64 `[rows]`, and how many characters it has.

    Raises InputError where the data is no text.
    """
    calibrate = context.recipe.calibrate
    data = calibrate.data or DEFAULT
    name = data if isinstance(data, str) else data.name
    if name in sources.names() and sources.get(name).meta.gives == "tokens":
        raise InputError(f"calibrate.data: {name} gives tokens, whose use says nothing; name a text")
    counts, characters = np.zeros(rows, np.int64), 0
    texts = iter(list(corpus(calibrate, tokenizer, context.recipe.seed)))
    for some in track(list(iter(lambda: list(islice(texts, TEXTS)), [])), "counting tokens"):
        ids = [number for one in tokens(tokenizer, iter(some)) for number in one]
        counts += np.bincount(np.array(ids, np.int64), minlength=rows)
        characters += sum(map(len, some))
    if not counts.any():
        raise InputError("calibrate.data: has no text to count; name one that has")
    return counts, characters


def named_tokens(source: Model, tokenizer: PreTrainedTokenizerBase) -> tuple[set[int], list[Named], Named]:
    """Ids that configs, transformers' tokenizer and the chat template name; those of the files beside config.json, and
    of that itself.

    Raises InputError for an id that is no token.
    """
    checkpoint, rows = source.checkpoint, vocabulary(source).size
    beside = named_beside(checkpoint.folder, checkpoint.side_files, rows)
    own = Named(str(checkpoint.folder / "config.json"), rows).read(full_config(source))
    found = {number for one in (*beside, own) for number in one.ids}
    return found | set(tokenizer.all_special_ids) | set(_of_template(tokenizer)), beside, own


def full_config(source: Model) -> dict[str, Any]:
    """config.json with the ids written out that it has by its class alone."""
    raw = source.checkpoint.config
    assert source.config is not None  # a module in memory has no tokens
    return implied(source.config.to_dict(), raw)


def _of_template(tokenizer: PreTrainedTokenizerBase) -> Iterable[int]:
    """What the chat template writes around messages."""
    if not getattr(tokenizer, "chat_template", None):
        return
    for roles in (("system", "user", "assistant"), ("user", "assistant"), ("user",)):
        messages = [{"role": role, "content": role} for role in roles]
        try:
            text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception:  # whatever Jinja and the template itself raise: many refuse some role
            continue
        yield from next(tokens(tokenizer, iter([text])))
