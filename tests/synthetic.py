"""A small graph built by hand: two GQA blocks with channels on a residual stream, weights drawn from a seed."""

from __future__ import annotations

import torch

from compress.graph.families import Family, Graph, Kind, Member, Role, Work
from compress.graph.layout import Axis, Layout, Product, Sum
from compress.graph.layout import families as named

HIDDEN, HEADS, GROUP, DIM, CHANNELS, VOCAB = 12, 4, 2, 3, 10, 20


def toy(blocks: int = 2, channels: int = CHANNELS, fused: bool = False, conv1d: bool = False) -> Graph:
    """`fused`: gate and up in one tensor; `conv1d`: the consumer of channels is stored `[in, out]`."""
    hidden, vocab = Axis("hidden", HIDDEN), Axis("vocab", VOCAB)
    layouts: dict[str, tuple[Layout, ...]] = {"embed.weight": (vocab, hidden)}
    families: dict[str, Family] = {}
    works: list[Work] = []
    tokens = (Axis("batch", 1), Axis("sequence", 1))
    names = tuple(f"layers.{i}" for i in range(blocks))
    for i, block in enumerate(names):
        heads, wide = Axis(f"heads.{i}", HEADS), Axis(f"channels.{i}", channels)
        dim = Axis(f"dim.{i}", DIM)
        query, value = Product((heads, Axis(f"group.{i}", GROUP), dim)), Product((heads, dim))
        local: dict[str, tuple[Layout, ...]] = {
            "q": (query, hidden),
            "k": (value, hidden),
            "v": (value, hidden),
            "o": (hidden, query),
            "down": (wide, hidden) if conv1d else (hidden, wide),
        }
        local |= {"gate_up": (Sum((wide, wide)), hidden)} if fused else {"gate": (wide, hidden), "up": (wide, hidden)}
        layouts |= {f"{block}.{name}.weight": dims for name, dims in local.items()}
        layouts[f"{block}.down.bias"] = (hidden,)
        ends: list[tuple[str, tuple[str, ...], Kind]] = [
            (heads.family, ("q", "k", "v", "o"), "heads"),
            (wide.family, tuple(local), "channels"),
        ]
        for family, dims, kind in ends:
            members = []
            for name in dims:
                for d, layout in enumerate(local[name]):
                    if family in named(layout):
                        role: Role = "in" if name in ("o", "down") else "out"
                        members.append(Member(f"{block}.{name}.weight", d, role, layout))
            families[family] = Family(family, kind, HEADS if kind == "heads" else channels, tuple(members), layer=i)
        works += [Work((*tokens, *dims), block=i) for dims in local.values()]
    families["layers"] = Family("layers", "layers", blocks, blocks=names)
    return Graph(layouts, families, names, tuple(works))


def tensors(graph: Graph, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random stored tensors of the graph."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn([d.size for d in dims], generator=generator) for name, dims in graph.layouts.items()}


RELEVANCE = [f"input_relevance{rule}" for rule in ("", "_gamma", "_positive", "_composite")]
OTHERS = ("output_curvature", "block_cosine", "block_angle")


def statistics(graph: Graph, weights: dict[str, torch.Tensor], seed: int = 1) -> dict[str, dict[str, torch.Tensor]]:
    """Statistics of random inputs and gradients, for every tensor and block."""
    generator = torch.Generator().manual_seed(seed)
    names = ("input_norm", "input_mean", "input_variance", "input_gram", "projection", "gradient", "fisher")
    stats: dict[str, dict[str, torch.Tensor]] = {name: {} for name in (*names, *OTHERS, *RELEVANCE)}
    inputs = {m.tensor: m.dim for f in graph.families.values() for m in f.members if m.role == "in"}
    for name, weight in weights.items():
        stats["gradient"][name] = torch.randn(weight.shape, generator=generator)
        stats["fisher"][name] = torch.rand(weight.shape, generator=generator)
        if name in inputs:
            n = weight.shape[inputs[name]]
            x = torch.randn(50, n, generator=generator) * torch.rand(n, generator=generator) + 0.3
            stats["input_norm"][name] = x.square().sum(0).div(5).sqrt()  # 5 sequences of 10 tokens
            stats["input_mean"][name], stats["input_variance"][name] = x.mean(0), x.var(0, correction=0)
            stats["input_gram"][name] = x.T @ x / len(x)
            size = HEADS if ".o." in name else n
            stats["projection"][name] = torch.rand(size, generator=generator)
            outputs = torch.Generator().manual_seed(seed)  # of its own, so that the others stay what they were
            g = torch.randn(50, weight.shape[1 - inputs[name]], generator=outputs)
            stats["output_curvature"][name] = g.T @ g / len(g)
            for rule in RELEVANCE:
                stats[rule][name] = (x * torch.randn(x.shape, generator=outputs)).sum(0)
    for i, block in enumerate(graph.blocks):
        stats["block_angle"][block] = torch.tensor(0.1 + 0.05 * i)
        stats["block_cosine"][block] = torch.cos(torch.pi * stats["block_angle"][block])
    return stats
