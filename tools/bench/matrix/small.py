"""A tiny configuration of any transformers type out of its default one: what small.toml says, by names of fields."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

TABLE: dict[str, Any] = tomllib.loads((Path(__file__).parent / "small.toml").read_text(encoding="utf-8"))
SIZES: dict[str, int] = TABLE["sizes"]
FIELDS = {name: frozenset(words.split()) for name, words in TABLE["fields"].items()}
SPANS = {name: int(size) for size, words in TABLE["spans"].items() for name in words.split()}
WIDTHS = {name: int(size) for size, words in TABLE["widths"].items() for name in words.split()}

LEVELS = (0, 1, 2, 3)
"""How far to shrink, the furthest first: everything; heads as wide as they are derived; depth, vocabulary and images;
depth alone. An architecture may refuse a level whose numbers do not go together."""

TOKEN = re.compile(r"(token_id|token_index|_token|start_id|end_id)$")
OPEN = re.compile(r"^(image|video|audio)_token_(id|index)$")
"""Tokens that stand for something else than text; without one nothing else is read."""

ROPE = ("rope_parameters", "rope_scaling", "rope_theta")
ROTATED = [2, 3, 3]
"""Sections of a rotary head that is 16 wide, for positions in time, height and width."""
DROPPED = frozenset(
    [
        "transformers_version",
        "architectures",
        "_name_or_path",
        "torch_dtype",
        "dtype",
        "label2id",
        "id2label",
        "_commit_hash",
        "quantization_config",  # the weights that are made are not quantised
    ]
)
KEPT = frozenset(["task_specific_params", "generation_config"])


def small(model_type: str, config: Mapping[str, Any], level: int) -> dict[str, Any]:
    """The default `config` of a type, as `to_dict` gives it, shrunk to `level` (see LEVELS)."""
    made = _Section({**config, **TABLE["given"].get(model_type, {})}, level, depth=0).shrunk()
    return _merged(made, TABLE["then"].get(model_type, {}) if level < 2 else {})


def _merged(made: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`made` with what `more` says instead, also inside of its towers."""
    both = {key: _merged(made[key], more[key]) for key in more if isinstance(made.get(key), dict)}
    return {**made, **more, **both}


class _Section:
    """One configuration, or one of a tower inside of it, `depth` configurations down."""

    def __init__(self, values: Mapping[str, Any], level: int, depth: int) -> None:
        self.values, self.level, self.depth = values, level, depth
        self.staged = any(isinstance(values.get(key), list | tuple) and values[key] for key in FIELDS["of_stages"])
        self.picked = _one_of_each(values)
        self.layers = len(self.picked) if self.picked else SIZES["layers"]
        self.before = next((n for key in _MAIN if isinstance(n := values.get(key), int)), None)
        self.tokens = 0

    def shrunk(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in self.values.items():
            if key not in DROPPED:
                made[key] = self._one(key, value)
        self._agree(made)
        return made

    def _one(self, key: str, value: Any) -> Any:
        if value is None and OPEN.search(key):
            return self._token(key, 0)
        if isinstance(value, bool) or value is None or key in KEPT:
            return value
        if isinstance(value, dict):
            if key in ROPE:
                return self._rope(value)
            if key == "per_layer_config" and value:
                return self._per_layer(value)
            return _Section(value, self.level, self.depth + 1).shrunk()
        if isinstance(value, int):
            return self._number(key, value)
        return self._list(key, value) if isinstance(value, list | tuple) and value else value

    def _number(self, key: str, value: int) -> int:
        if key == "vocab_size_per_layer_input" or (key == "vocab_size" and self.level < 3):
            return min(value, SIZES["vocabulary"])
        if key in FIELDS["layers"]:
            return self.layers if key in _MAIN and self.picked and value > 1 else min(value, SIZES["layers"])
        if self.level >= 3:
            return value
        if TOKEN.search(key) and key not in WIDTHS:  # experts are counted per token
            return self._token(key, value) if value >= SIZES["vocabulary"] else value
        if key in FIELDS["image"]:
            base = self.values.get("patch_size") or self.values.get("encoder_stride")
            return min(value, SIZES["patched"] if self._cut(base) else SIZES["image"])
        if key == "patch_size" and not self.staged:
            return min(value, SIZES["patch"])
        if key in SPANS:
            return min(value, SPANS[key])
        if self.level >= 2 or self.staged or value <= 0 or key not in WIDTHS:
            return value
        if self.level == 1 and key in FIELDS["head_widths"]:
            return 128
        return min(value, 512 if self.level == 1 and WIDTHS[key] == 64 else WIDTHS[key])

    def _token(self, key: str, value: int) -> int:
        self.tokens += 1
        usual = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        return usual.get(key, 2 + 5 * self.depth + self.tokens)

    def _list(self, key: str, value: Sequence[Any]) -> Any:
        if key == "attention_window":
            return [SPANS[key]] * self.layers
        if key in FIELDS["of_layers"] and self.picked and len(value) > max(self.picked):
            return [value[i] for i in self.picked]
        if key in FIELDS["convolutions"] and self.level < 2:
            return [SIZES["convolved"]] * len(value)
        if key in FIELDS["layer_numbers"]:
            return list(range(self.layers))[: len(value)]
        if key in FIELDS["blocks_of_stages"]:
            return [min(n, SIZES["layers"]) if isinstance(n, int) else n for n in value]
        if self.level < 3 and key in FIELDS["image"]:
            return [SIZES["image"] if self.staged else SIZES["patched"]] * len(value)
        if self.level < 3 and key == "mlp_only_layers":
            return []
        if len(value) == self.before and len(value) > 2 and not self.staged:
            return [value[i] for i in self.picked or range(self.layers)]
        return value

    def _rope(self, value: Mapping[str, Any]) -> dict[str, Any]:
        made = copy.deepcopy(dict(value))
        for key, inner in made.items():
            if isinstance(inner, dict):
                made[key] = self._rope(inner)
            elif self.level < 2 and key == "mrope_section" and inner:
                made[key] = ROTATED
            elif self.level < 2 and key in ("long_factor", "short_factor"):
                made[key] = inner[: WIDTHS["head_dim"] // 2]
        return made

    def _per_layer(self, value: Mapping[Any, Any]) -> dict[int, Any]:
        old = {str(number): own for number, own in value.items()}
        kept = enumerate(self.picked or range(self.layers))
        return {new: old[str(number)] for new, number in kept if str(number) in old}

    def _agree(self, made: dict[str, Any]) -> None:
        """Numbers that follow from one another."""
        names = made.get("stage_names")
        if not self.staged and isinstance(names, list) and len(names) > self.layers + 1:
            for key in ("stage_names", "out_features", "out_indices"):
                made.pop(key, None)
        if self.level == 0 and self.values.get("model_type") in FIELDS["rotated_in_sections"]:
            head = made.get("head_dim") or made["hidden_size"] // made["num_attention_heads"]
            turned = int(head * made["rope_parameters"].get("partial_rotary_factor", 1)) // 2
            down = turned * 3 // 8
            made["rope_parameters"]["mrope_section"] = [turned - 2 * down, down, down]
        if self.level < 2 and self.values.get("model_type") in FIELDS["without_groups"]:
            made["num_key_value_heads"] = made["num_attention_heads"]
        rotated = self.values.get("qk_rope_head_dim")
        if self.level < 3 and rotated and self.values.get("head_dim") == rotated:
            made["head_dim"] = made["qk_rope_head_dim"]
        if self.level < 2 and made.get("kv_lora_rank") and isinstance(made.get("num_key_value_heads"), int):
            made["num_key_value_heads"] = made.get("num_attention_heads", 4)

    def _cut(self, base: Any) -> bool:
        return isinstance(base, int) and base > 1 and not self.staged


_MAIN = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers")


def _one_of_each(values: Mapping[str, Any]) -> list[int]:
    """Layers that stay where there are several sorts: the first of each sort, two at least; [] where there are none."""
    picked: list[int] = []
    for key in FIELDS["of_layers"]:
        sorts = values.get(key)
        if isinstance(sorts, list | tuple) and len(sorts) > 1 and all(isinstance(sort, str) for sort in sorts):
            for number, sort in enumerate(sorts):
                if sort not in {sorts[i] for i in picked if i < len(sorts)}:
                    picked.append(number)
    if len(set(picked)) == 1:
        picked += [i for i in range(4) if i not in picked][:1]
    return sorted(set(picked))


def smallest(try_level: Callable[[int], Any]) -> tuple[Any, int]:
    """What `try_level` makes of the furthest level that it does not refuse. Raises what it raised at first."""
    first: Exception | None = None
    for level in LEVELS:
        try:
            return try_level(level), level
        except Exception as error:  # foreign modeling code refuses in every way
            first = first or error
    assert first is not None
    raise first
