"""Small modules as a user would write them: no config, no class of transformers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.recipe.read import parse_recipe
from compress.recipe.schema import Recipe


def recipe(*steps: str, calibrate: str = "") -> Recipe:
    """Of these steps."""
    head = f"calibrate: {calibrate}\n" if calibrate else ""
    return parse_recipe(head + "steps:\n" + "".join(f"  - {step}\n" for step in steps))


class Mlp(nn.Module):
    def __init__(self, wide: int = 24) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, wide), nn.Linear(wide, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x).relu()).relu())


class Grouped(nn.Module):
    """Attention whose keys and values serve several queries."""

    def __init__(self, width: int, heads: int, shared: int, size: int) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, size
        self.q, self.k, self.v = (nn.Linear(width, n * size) for n in (heads, shared, shared))
        self.o = nn.Linear(heads * size, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, _ = x.shape
        q = self.q(x).view(rows, length, self.heads, self.size).transpose(1, 2)
        k, v = (f(x).view(rows, length, self.shared, self.size).transpose(1, 2) for f in (self.k, self.v))
        k, v = (self.repeated(z) for z in (k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(rows, length, self.heads * self.size))

    def repeated(self, x: Tensor) -> Tensor:
        rows, _, length, _ = x.shape
        wide = x[:, :, None].expand(rows, self.shared, self.heads // self.shared, length, self.size)
        return wide.reshape(rows, self.heads, length, self.size)


class Plain(nn.Module):
    """Attention over all positions, as many people write it: its last view is as wide as its input was."""

    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.qkv, self.o = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        q, k, v = self.qkv(x).reshape(rows, length, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.o(y.transpose(1, 2).reshape(rows, length, width))


class WrittenIn(Grouped):
    """The same with its numbers written into the code."""

    def forward(self, x: Tensor) -> Tensor:
        rows, length, _ = x.shape
        q = self.q(x).view(rows, length, 4, 8).transpose(1, 2)
        k, v = (f(x).view(rows, length, 2, 8).transpose(1, 2) for f in (self.k, self.v))
        k, v = (z[:, :, None].expand(rows, 2, 2, length, 8).reshape(rows, 4, length, 8) for z in (k, v))
        return self.o(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, length, 32))


class Block(nn.Module):
    def __init__(self, attention: nn.Module, width: int, inner: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), attention
        self.other, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        return x + self.down(functional.gelu(self.up(self.other(x))))


class Decoder(nn.Module):
    """Token ids `[rows, length]` → logits; ends tied."""

    def __init__(self, attention: type[Grouped] = Grouped, layers: int = 2) -> None:
        super().__init__()
        self.tokens, self.norm = nn.Embedding(40, 16), nn.LayerNorm(16)
        self.blocks = nn.ModuleList(Block(attention(16, 4, 2, 8), 16, 24) for _ in range(layers))
        self.head = nn.Linear(16, 40, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@dataclass(frozen=True)
class Sizes:
    heads: int = 4
    width: int = 16
    longest: int = 32


class Fused(nn.Module):
    """Attention that reads its sizes from an object which all layers share, and one that it noted itself; `longest`
    happens to be as large as its heads together."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, self.inner, self.longest = sizes, 2 * sizes.width, sizes.longest
        self.qkv, self.o = nn.Linear(sizes.width, 3 * self.inner), nn.Linear(self.inner, sizes.width)
        self.register_buffer("past", torch.ones(32, 32).tril().bool(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, _ = x.shape
        assert length <= self.longest
        parts = self.qkv(x).split(self.inner, dim=2)
        size = self.inner // self.sizes.heads
        q, k, v = (z.view(rows, length, self.sizes.heads, size).transpose(1, 2) for z in parts)
        scores = (q @ k.transpose(-2, -1) * size**-0.5).masked_fill(~self.past[:length, :length], float("-inf"))
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).contiguous().view(rows, length, self.inner))


class Counting(nn.Module):
    """Blocks that are walked through by number; it returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        sizes = Sizes()
        self.start = nn.Linear(6, 16)
        self.blocks = nn.ModuleList(Block(Fused(sizes), 16, 24) for _ in range(3))
        self.count = len(self.blocks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.start(x)
        for number in range(self.count):
            x = self.blocks[number](x)
        return {"states": x, "pooled": x.mean(1)}


class Patches(nn.Module):
    """Patches `[rows, patches, 12]` → classes, by torch's own encoder."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, activation="gelu", batch_first=True, norm_first=True)
        self.embed, self.head = nn.Linear(12, 16), nn.Linear(16, 5)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


class Constants(nn.Module):
    """It multiplies by tensors that are not stored, and takes arguments of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gains", torch.linspace(0.5, 2, 6), persistent=False)
        self.shift = torch.arange(6.0)
        self.up, self.down = nn.Linear(6, 20), nn.Linear(20, 3)

    def forward(
        self, x: Tensor, extra: dict[str, list[Tensor]], *, labels: Tensor, double: bool
    ) -> tuple[Tensor, Tensor]:
        y = self.up(x * self.gains + self.shift).relu()
        y = self.down(y + y if double else y)
        return y + extra["bias"][0], (y * labels).sum()


class Shifted(Mlp):
    """With constants that no file holds: one is the same for all channels, the other is not."""

    def __init__(self, values):
        super().__init__()
        self.register_buffer("shift", torch.full((24,), 0.5), persistent=False)
        self.register_buffer("scale", values, persistent=False)

    def forward(self, x):
        return self.third((self.second((self.first(x) + self.shift).relu()) * self.scale).relu())
