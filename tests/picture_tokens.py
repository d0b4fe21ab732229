"""Tokens of a picture, what the runtime would hand over of them, and a selection run on it."""

from __future__ import annotations

import numpy as np
import torch

from compress.registry import token_selects

N, DIM, GRID = 12, 5, (3, 4)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def offers(n=N, grid=GRID, seed=0):
    """What the runtime would hand over, for n tokens."""
    found = {
        "scores": drawn(n, seed=seed),
        "hidden": drawn(n, DIM, seed=seed + 1),
        "key": drawn(n, 2, DIM, seed=seed + 2),
        "text": drawn(6, DIM, seed=seed + 3),
        "grid": grid,
    }

    def choose(part, among, keep):
        entry = token_selects.get(part.select.name)
        per_token = {name: value[among] for name, value in found.items() if name not in ("text", "grid")}
        if part.score is not None:
            assert part.score.name == "hidden_norm"
            per_token["scores"] = found["hidden"][among].norm(dim=1)
        have = {**found, **per_token, "keep": keep}
        return part.select.bind(token_selects)(**{name: have[name] for name in entry.meta.needs})

    return found | {"choose": choose}


def run(part, keep, have=None, **arguments):
    have = (have or offers()) | {"keep": keep}
    entry = token_selects.get(part)
    return entry.bind(arguments)(**{name: have[name] for name in entry.meta.needs})


def similar(a, b):
    return float(a @ b) / (float(a @ a) ** 0.5 * float(b @ b) ** 0.5)


def distances(hidden):
    points = hidden.double().numpy()
    return np.array([[1 - similar(a, b) for b in points] for a in points])
