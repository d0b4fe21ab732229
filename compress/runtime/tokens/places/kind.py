"""What a model says of its pictures: its parts, and which patches of the tower each visual token is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compress.attention.call import Attention
from compress.errors import ModelError

TEXT = ("language_model", "text_model")
TOWER = ("vision_tower", "visual", "vision_model")
CLS = ("cls_token", "class_embedding", "class_token", "cls_embedding")
"""What transformers calls a tower's parameter of the token that stands for the whole picture."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Visual tokens of one picture that lie in rows and columns: all of them, or a part that is laid out apart.

    `tokens` long `[n]`: their places among the picture's tokens, row by row. `shape`: rows and columns. `units` long
    `[n, patches]`: the tower's patches that each is made of, numbered through all that the tower ran over; None where
    that is not known. `prefix`: how many other tokens, such as CLS, the tower has before the patches of each tile.
    """

    tokens: Tensor
    shape: tuple[int, int] | None
    units: Tensor | None
    prefix: int = 0


@dataclass(eq=False)
class Seen:
    """What the tower ran over: `counts`, tokens of each picture; the arguments that the model's `get_image_features`
    got, by name; the tower's last `hidden`, `[pictures, patches, size]` or `[patches, size]`, None where it did not
    run; the `attention` of layers that were watched, by number; and `order`, long `[patches]`: which of the patches
    given each of the tower's is, None where it has them in the same order."""

    counts: Sequence[int] = ()
    given: dict[str, Any] = field(default_factory=dict)
    hidden: Tensor | None = None
    attention: dict[int, list[Attention]] = field(default_factory=lambda: defaultdict(list))
    order: Tensor | None = None


class Places(ABC):
    """The parts of a model that writes about pictures.

    `core` calls the tower and then `text`, whose `layers` are the decoder's; `tower` with its `tower_layers`.
    """

    needs: ClassVar[str] = ""
    """What a model must have beside its parts; for messages."""

    def __init__(self, core: nn.Module) -> None:
        self.core = core
        self.text, self.tower = _part(core, TEXT), _part(core, TOWER)
        self.layers: nn.ModuleList = self.text.layers  # pyright: ignore[reportAttributeAccessIssue]
        self.tower_layers = _longest(self.tower)
        self.token_id = int(core.config.image_token_id)  # pyright: ignore

    @classmethod
    @abstractmethod
    def fits(cls, core: nn.Module) -> bool:
        """Whether the pictures of this model are laid out in this way."""

    @abstractmethod
    def grids(self, seen: Seen) -> list[list[Grid]]:
        """Of each picture, its grids; tokens in none of them, such as ends of lines, are never dropped."""

    @property
    def has_cls(self) -> bool:
        """Whether the tower has a token that stands for the whole picture."""
        return any(name.rpartition(".")[2] in CLS for name, _ in self.tower.named_parameters())

    def watched(self, undo: Any) -> None:
        """Have `core` say what `grids` needs beside `Seen`; whatever is changed in it is given to `undo`."""
        return None

    @property
    def late(self) -> int:
        """The number of decoder layers that add pictures' features; a token may go after these only."""
        return 0

    @property
    def flash(self) -> bool:
        """Whether the decoder's attention takes masks `[batch, keys]` only."""
        return "flash" in str(self.text.config._attn_implementation)  # pyright: ignore

    def window(self, layer: int) -> int | None:
        """How many columns back a layer of the decoder looks, its own among them; None where it has no limit."""
        config: Any = self.text.config
        window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
        return window if kinds is None or kinds[layer] == "sliding_attention" else None


def _part(core: nn.Module, names: Sequence[str]) -> nn.Module:
    children = dict(core.named_children())
    return next(children[name] for name in names if name in children)


def _longest(tower: nn.Module) -> list[nn.Module]:
    lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=len)) if lists else []


def core_of(model: nn.Module) -> nn.Module | None:
    """The innermost module that has both a language model and a tower; None in a model without pictures."""
    found = None
    for module in model.modules():
        children = dict(module.named_children())
        if (
            hasattr(module, "get_image_features")
            and any(name in children and hasattr(children[name], "layers") for name in TEXT)
            and any(name in children for name in TOWER)
        ):
            found = module
    return found


def square(count: int, ratio: float = 1.0) -> tuple[int, int] | None:
    """Rows and columns of `count` tokens whose grid is `ratio` times as high as it is wide; None where it has none."""
    rows = round((count * ratio) ** 0.5)
    return (rows, count // rows) if rows and count % rows == 0 and abs(rows / (count // rows) - ratio) < 0.35 else None


def blocks(shape: tuple[int, int], side: int, width: int) -> Tensor:
    """The patches, long `[rows · columns, side²]`, that make each token where a token is `side` × `side` of them; a
    line has `width` patches."""
    rows, columns = (torch.arange(count) for count in shape)
    inside = torch.arange(side)
    down = rows[:, None, None, None] * side + inside[None, None, :, None]
    across = columns[None, :, None, None] * side + inside[None, None, None, :]
    return (down * width + across).reshape(shape[0] * shape[1], side * side)


def side_of(patches: int, tokens: int) -> int:
    """How many patches a token is wide, of a tower with `patches` outputs for `tokens` tokens."""
    return max(1, isqrt(patches // tokens))


def uneven(core: nn.Module, why: str) -> ModelError:
    return ModelError(f"{type(core).__name__}: {why}; remove the rule that reads the tower, or give other pictures")
