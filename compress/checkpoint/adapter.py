"""A LoRA adapter's folder: adapter_config.json and adapter_model.safetensors, merged into the base model as it is read.

What peft's `merge_and_unload` computes, one tensor at a time. An adapter that cannot be merged so that the result does
what the adapter did (aLoRA, kinds of PEFT other than LoRA, …) is refused with the field that says it.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from compress.checkpoint.header import AGAIN, TensorSpec, read_header
from compress.checkpoint.lora import Change, Replaced, low_rank
from compress.checkpoint.seen import Seen, Stamp
from compress.checkpoint.side_files import side_files
from compress.checkpoint.weight_files import SAFE, read_small
from compress.errors import InputError
from compress.registry import did_you_mean

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."

MEANT = {
    *("peft_type", "r", "lora_alpha", "use_rslora", "alpha_pattern", "rank_pattern", "fan_in_fan_out", "use_dora"),
    *("base_model_name_or_path", "revision", "init_lora_weights"),
}
"""Fields that are obeyed here."""

PAST = {
    *("auto_mapping", "task_type", "peft_version", "inference_mode", "lora_dropout", "eva_config", "megatron_core"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "bias", "modules_to_save"),
    *("runtime_config", "loftq_config", "corda_config", "lora_ga_config", "qalora_group_size", "ensure_weight_tying"),
}
"""Fields that say how the adapter was trained, or what the names of its tensors say again."""

BASE_KEPT = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base's weights as they are; the others (PiSSA, OLoRA, …) change them."""

PART = re.compile(r"(.+)\.(lora_(?:embedding_)?[AB]|lora_magnitude_vector)(?:\.weight)?")


@dataclass(frozen=True)
class Adapter:
    """An adapter that was read: what it changes is found once its base is known (`onto`)."""

    folder: Path
    base: str | None
    revision: str | None
    config: dict[str, Any]
    tensors: dict[str, TensorSpec]
    weights: dict[Path, Seen]
    papers: dict[Path, Seen]

    def onto(self, base: dict[str, TensorSpec]) -> Merged:
        """The changes to the `base`'s stored tensors. Raises InputError for a tensor that does not fit any of them."""
        parts: dict[str, dict[str, TensorSpec]] = defaultdict(dict)
        changes: dict[str, list[Change]] = defaultdict(list)  # what replaces a tensor comes before what is added
        for name, spec in self.tensors.items():
            inside = name.removeprefix(PREFIX)
            if found := PART.fullmatch(inside):
                parts[found[1]][found[2]] = spec
            elif "lora_" in inside:
                raise InputError(f"{spec.file}: {name} is of a form that is not merged here; merge it with peft")
            else:
                inside = inside.replace(".base_layer.", ".")
                disk = _disk_name(inside, base, spec.file)
                if base[disk].shape != spec.shape:
                    raise InputError(
                        f"{spec.file}: {name} is {list(spec.shape)}, {disk} of the base {list(base[disk].shape)}; the "
                        f"adapter belongs to another base model, or has more tokens: merge it with peft"
                    )
                changes[disk].append(Replaced(spec))
        for module, given in parts.items():
            disk = _disk_name(f"{module}.weight", base, next(iter(given.values())).file)
            change = low_rank(
                module,
                given,
                base[disk],
                alpha=self._alpha(module),
                by_root=bool(self.config.get("use_rslora")),
                fan_in_fan_out=bool(self.config.get("fan_in_fan_out")),
            )
            changes[disk].append(change)
        return Merged(self.folder, dict(changes))

    def _alpha(self, module: str) -> float:
        """The numerator of the module's scaling; a pattern is a regular expression for the end of its name."""
        patterns: dict[str, float] = self.config.get("alpha_pattern") or {}
        found = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), None)
        return float(self.config["lora_alpha"] if found is None else patterns[found])


@dataclass(frozen=True)
class Merged:
    """An adapter on its base: stored tensor → how it changes, in this order."""

    folder: Path
    changes: dict[str, list[Change]]

    def unlike(self, base: Path) -> list[str]:
        """Files beside the adapter, such as a tokenizer's, that its base in the folder `base` has not, or otherwise."""
        files = [file.relative_to(self.folder) for file in side_files(self.folder).travelling]
        return [
            str(file)
            for file in files
            if file.name.lower() != "readme.md"
            and not ((base / file).is_file() and (base / file).read_bytes() == (self.folder / file).read_bytes())
        ]

    def apply(self, name: str, weight: Tensor) -> Tensor:
        """The base's tensor `name` with the adapter in it."""
        for change in self.changes.get(name, ()):
            weight = change.merged(weight)
        return weight


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model of its own; trainers save a config.json beside some."""
    weights = (folder / SAFE).exists() or (folder / f"{SAFE}.index.json").exists()
    return (folder / CONFIG).exists() and not (weights and (folder / "config.json").exists())


def read_adapter(folder: Path) -> Adapter:
    """The adapter in `folder`, its tensors unread.

    Raises InputError, naming file, field and cure, when a file is missing, corrupt or pickled, and for what cannot be
    merged.
    """
    file, tensors = folder / CONFIG, folder / TENSORS
    try:
        text, paper = read_small(file)
        config: dict[str, Any] = json.loads(text)
        kind = config["peft_type"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{file}: not the config of a LoRA adapter ({error}); {AGAIN}") from None
    if kind != "LORA":
        raise InputError(f"{file}: peft_type: {kind!r} cannot be merged here, LORA can; merge it with peft")
    _check_fields(file, config)
    if not tensors.exists():
        pickled = f"; {folder / 'adapter_model.bin'} is a pickle, save it as safetensors"
        raise InputError(f"{tensors}: missing{pickled if (folder / 'adapter_model.bin').exists() else f'; {AGAIN}'}")
    stamp = Stamp.of(tensors)
    specs, raw = read_header(tensors)
    if not specs:
        raise InputError(f"{tensors}: holds no tensor; {AGAIN}")
    seen = Seen(stamp, len(raw).to_bytes(8, "little") + raw)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    return Adapter(folder, base or None, revision or None, config, specs, {tensors: seen}, {file: paper})


def _check_fields(file: Path, config: dict[str, Any]) -> None:
    """Raise InputError for a field that has no value of its kind, or one that is not obeyed here."""
    if not isinstance(alpha := config.get("lora_alpha"), int | float):
        raise InputError(f"{file}: lora_alpha: {alpha!r} is no number; {AGAIN}")
    for field in ("base_model_name_or_path", "revision"):
        if not isinstance(value := config.get(field), str | None):
            raise InputError(f"{file}: {field}: {value!r} is no name; {AGAIN}")
    patterns = config.get("alpha_pattern") or {}
    try:
        for pattern, value in patterns.items():
            re.compile(pattern)
            float(value)
    except (AttributeError, TypeError, ValueError, re.error) as error:
        raise InputError(f"{file}: alpha_pattern: not patterns of names and their numbers ({error}); {AGAIN}") from None
    for field, value in config.items():
        if value and field not in MEANT | PAST:
            raise InputError(f"{file}: {field}: {value!r} is not merged here; merge it with peft")
    if (start := config.get("init_lora_weights")) not in BASE_KEPT:
        raise InputError(
            f"{file}: init_lora_weights: {start!r} changes the base's weights too; save the adapter as a plain LoRA "
            f"(save_pretrained(path_initial_model_for_weight_conversion=…)), or merge it with peft"
        )


def _disk_name(name: str, base: dict[str, TensorSpec], file: Path) -> str:
    """The base's stored tensor called `name`; files may leave a prefix out or have one more (`transformer.h.0` or
    `h.0`)."""
    if name in base:
        return name
    near = [disk for disk in base if disk.endswith(f".{name}") or name.endswith(f".{disk}")]
    if len(near) == 1:
        return near[0]
    said = did_you_mean(name, base) if not near else f"; it may be {near[0]} or {near[1]}"
    raise InputError(f"{file}: changes {name}, which the base model does not store{said}; pass another --base")
