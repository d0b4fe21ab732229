"""Token ids in configs: which keys hold them, and the same config with other numbers.

transformers' configs name tokens by keys such as `eos_token_id`, at any depth. A key that may hold ids and is not known
to is told of, never changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from compress.errors import InputError

NAMED = re.compile(
    r"(^|_)tokens?_(id|ids|index|indices|idx)$|^(bos|eos|pad|padding|unk|mask|cls|sep)_(id|index|idx)$|"
    r"^forced_decoder_ids$|^force_words_ids$|^(lang|task|speaker)_to_id$"
)
"""Keys of tokens that a model needs: one, a list, lists of lists, or a mapping of names to them."""

SHUNNED = re.compile(r"^(begin_)?suppress_tokens$|^bad_words_ids$")
"""Keys of tokens, or of sequences of them, that are not to be written: those that go are not written anyway."""

COUNTS = re.compile(
    r"num_|max_|min_|_len|_length|_size|_count|_prob|per_|type_id|^n_|_dim$|_dropout|_threshold|new_tokens|soft_tokens|"
    r"tokens_to_|_penalty|prompt_lookup|assistant"
)
"""Numbers that have `token` in their names and are no ids."""

Path = tuple[str, ...]


@dataclass
class Named:
    """The ids that a config names, in a vocabulary of `rows` tokens. `file`: where it lies, for messages.

    `foreign` are the keys of parts with a vocabulary of another size, whose ids are theirs; `unsure` those that may
    hold ids and are not known to.
    """

    file: str
    rows: int
    ids: set[int] = field(default_factory=set)
    foreign: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)

    def read(self, data: Mapping[str, Any]) -> Named:
        """Take in all ids of a config. Raises InputError for one that is no token."""
        self._walk(data, (), lambda number: number)
        return self

    def renumbered(self, data: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
        """The config with the ids of `new`, old id → new id; sequences with tokens that are gone are left out where
        they are not to be written."""
        return self._walk(data, (), new.get)

    def _walk(self, data: Mapping[str, Any], path: Path, number: Callable[[int], int | None]) -> dict[str, Any]:
        own = data.get("vocab_size")
        if path and isinstance(own, int) and own != self.rows:
            self.foreign.append(".".join(path))
            return dict(data)
        return {key: self._value(key, value, (*path, str(key)), number) for key, value in data.items()}

    def _value(self, key: Any, value: Any, path: Path, number: Callable[[int], int | None]) -> Any:
        key = str(key)
        if NAMED.search(key):
            return self._ids(value, path, number)
        if SHUNNED.search(key):
            return [mapped for one in value if (mapped := _all(one, number)) is not None] if value else value
        if key == "sequence_bias" and value:
            pairs = [[list(tokens), bias] for tokens, bias in (value.items() if isinstance(value, dict) else value)]
            mapped = [[_all(tokens, number), bias] for tokens, bias in pairs]
            return [pair for pair in mapped if pair[0] is not None]
        if isinstance(value, dict):
            return self._walk(value, path, number)
        if isinstance(value, list) and any(isinstance(one, dict) for one in value):
            return [self._walk(one, path, number) if isinstance(one, dict) else one for one in value]
        if "token" in key and _whole(value) and not COUNTS.search(key):
            self.unsure.append(".".join(path))
        return value

    def _ids(self, value: Any, path: Path, number: Callable[[int], int | None]) -> Any:
        """One id, or however many in lists and mappings; −1 and nothing stand for none.

        Of `forced_decoder_ids` a pair's first number is a place.
        """
        if isinstance(value, dict):
            return {name: self._ids(one, path, number) for name, one in value.items()}
        if isinstance(value, list):
            if path[-1] == "forced_decoder_ids" and len(value) == 2 and isinstance(value[0], int):
                return [value[0], self._ids(value[1], path, number)]
            return [self._ids(one, path, number) for one in value]
        if value is None or value == -1:
            return value
        where = f"{self.file}: {'.'.join(path)}"
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputError(f"{where} is {value!r}, which is no token's id; mend or remove it")
        if not 0 <= value < self.rows:
            raise InputError(f"{where} is {value}, and the model has tokens 0 to {self.rows - 1}; mend or remove it")
        self.ids.add(value)
        if (mapped := number(value)) is None:
            raise InputError(f"{where} names token {value}, which goes; plan anew")
        return mapped


def implied(full: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """`raw`, and the ids that a config has by its class alone, as `full` spells it out: they are not 2 for ever."""
    found = dict(raw)
    for key, value in full.items():
        if isinstance(value, dict) and isinstance(raw.get(key), dict):
            found[key] = implied(value, raw[key])
        elif key not in raw and NAMED.search(str(key)) and value is not None:
            found[key] = value
    return found


def _all(value: Any, number: Callable[[int], int | None]) -> Any:
    """An id or a sequence of them, None where one of them is gone."""
    if not isinstance(value, list | tuple):
        return number(value)
    mapped = [number(one) for one in value]
    return None if None in mapped else mapped


def _whole(value: Any) -> bool:
    """Whether a value is a whole number or a list of such."""
    if isinstance(value, list):
        return bool(value) and all(map(_whole, value))
    return isinstance(value, int) and not isinstance(value, bool)
