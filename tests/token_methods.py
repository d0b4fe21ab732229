"""The methods that prune visual tokens, written from their formulas over plain tensors (`by_hand.Hand`).

Each takes the share that is kept and gives what happens before which layer of a decoder of 16, behind a tower of 12.
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor, sqrt
from typing import Any

import torch
from by_hand import SIDE, Hand, N, cosine, top
from torch import Tensor

Act = Callable[[Hand], None]


def count(share: float) -> int:
    return int(share * N + 0.5)


def best(score: Callable[[Hand], Tensor], number: int) -> list[Act]:
    """Those of the highest scores stay."""
    return [lambda hand: hand.keep(top(score(hand), number))]


def asked_by_cls(hand: Hand, layer: int) -> Tensor:
    return hand.tower[layer].mean(0)[0, 1:]


def asked_by_all(hand: Hand, layer: int) -> Tensor:
    return hand.tower[layer].mean(0).mean(0)[1:]


def asked_by_last(hand: Hand, layer: int) -> Tensor:
    return hand.looked(layer, hand.columns[-1:])[:, 0].mean(0)


def asked_by_text(hand: Hand, layer: int) -> Tensor:
    return hand.looked(layer, hand.text).mean((0, 1))


def like_text(hand: Hand) -> Tensor:
    return cosine(hand.now(), hand.now(hand.text)).mean(1)


def zero_to_one(scores: Tensor) -> Tensor:
    return (scores - scores.min()) / (scores.max() - scores.min())


def fastervlm(keep: float) -> Any:
    return {0: best(lambda hand: asked_by_cls(hand, 10), count(keep))}


def vtc_cls(keep: float) -> Any:
    return {0: best(lambda hand: sum(asked_by_cls(hand, layer) for layer in range(6, 12)), count(keep))}


def fopru(keep: float) -> Any:
    return {0: best(lambda hand: asked_by_all(hand, 10), count(keep))}


def fopru_rows(keep: float) -> Any:
    def act(hand: Hand) -> None:
        score, tokens = asked_by_all(hand, 10).view(SIDE, SIDE), []
        for row in score.sum(1).argsort(descending=True).tolist():
            left = count(keep) - len(tokens)
            tokens += [row * SIDE + column for column in top(score[row], min(SIDE, left))]
        hand.keep(sorted(tokens))

    return {0: [act]}


def hiprune(keep: float) -> Any:
    def act(hand: Hand) -> None:
        budget, chosen = count(keep), set()
        for anchor in top(asked_by_all(hand, 4), max(1, round(round(0.1 * budget) / 5))):
            row, column = divmod(anchor, SIDE)
            around = [(row, column), (row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            chosen |= {y * SIDE + x for y, x in around if 0 <= y < SIDE and 0 <= x < SIDE}
        for token in asked_by_all(hand, 10).argsort(descending=True).tolist():
            if len(chosen) < budget:
                chosen.add(token)
        hand.keep(sorted(chosen))

    return {0: [act]}


def divprune(keep: float) -> Any:
    def act(hand: Hand) -> None:
        away = 1 - cosine(hand.now(), hand.now())
        chosen = [max(range(N), key=lambda i: min(float(away[i, j]) for j in range(N) if j != i))]
        while len(chosen) < count(keep):
            others = [i for i in range(N) if i not in chosen]
            chosen.append(max(others, key=lambda i: min(float(away[i, j]) for j in chosen)))
        hand.keep(sorted(chosen))

    return {0: [act]}


def spread(number: int, relevance: float = 0.0, score: Callable[[Hand], Tensor] | None = None) -> Act:
    """The next is the one whose mean distance to those chosen is largest."""

    def act(hand: Hand) -> None:
        away = 1 - cosine(hand.now(), hand.now())
        extra = zero_to_one(score(hand)) if score else torch.zeros(N)
        chosen: list[int] = []
        while len(chosen) < number:
            worth = (1 - relevance) * away[:, chosen or list(range(N))].mean(1) + relevance * extra
            chosen.append(max((i for i in range(N) if i not in chosen), key=lambda i: float(worth[i])))
        hand.keep(sorted(chosen))

    return act


def todre(keep: float) -> Any:
    return {0: [spread(count(keep))], 11: [lambda hand: hand.keep([])]}


def catp(keep: float) -> Any:
    growth = lambda hand: asked_by_last(hand, 5) - asked_by_last(hand, 2)  # noqa: E731
    return {0: [spread(count(sqrt(keep)), 0.5, like_text)], 6: best(growth, count(keep))}


def clusters(points: Tensor, number: int) -> list[list[int]]:
    """Members of clusters around density peaks, each list with its centre first."""
    away = (points[:, None].double() - points.double()).norm(dim=2) / sqrt(points.shape[1])
    density = (-away.square().topk(number, largest=False).values.mean(1)).exp().tolist()
    apart = []
    for i, own in enumerate(density):
        denser = [float(away[i, j]) for j, other in enumerate(density) if (other, -j) > (own, -i)]
        apart.append(min(denser) if denser else float(away.max()))
    order = sorted(range(len(points)), key=lambda i: -apart[i] * density[i])
    found = {centre: [centre] for centre in order[:number]}
    for i in range(len(points)):
        if i not in found:
            found[min(found, key=lambda centre: float(away[i, centre]))].append(i)
    return list(found.values())


def recycled(hand: Hand, kept: list[int], gone: list[int], number: int) -> None:
    """Those kept, and the means of clusters of `gone`."""
    members: dict[int, dict[int, float]] = {token: {token: 1.0} for token in kept}
    for own in clusters(hand.now()[gone], number):
        members[gone[own[0]]] = {gone[i]: 1 / len(own) for i in own}
    hand.merge(members)


def recoverable_compression(keep: float) -> Any:
    def act(hand: Hand) -> None:
        kept = top(hand.tower_last[1:] @ hand.tower_last[0], round(count(keep) / 2))
        rest = [token for token in range(N) if token not in kept]
        kept += [rest[i] for i in top(like_text(hand)[rest], count(keep) - len(kept))]
        gone = [token for token in range(N) if token not in kept]
        recycled(hand, kept, gone, len(gone) // 20 + 1)

    return {0: [act]}


def vflowopt(keep: float) -> Any:
    def first(hand: Hand) -> None:
        mean = hand.tower[11].mean(0)[1:, 1:]
        received = mean.mean(0)
        asking = received > 34.76 * received.mean()
        hand.score = mean[asking].mean(0) if asking.any() else received
        kept = top(hand.score, count(keep**0.9))
        members: dict[int, dict[int, float]] = {token: {token: 1.0} for token in kept}
        for cell in {(int(i // SIDE / 15.58), int(i % SIDE / 15.58)) for i in range(N)}:
            gone = [i for i in range(N) if i not in kept and (int(i // SIDE / 15.58), int(i % SIDE / 15.58)) == cell]
            total = float(hand.score[gone].sum())
            middle = max(gone, key=lambda i: float(hand.score[i]))  # pyright: ignore
            members[middle] = {i: float(hand.score[i]) / total for i in gone}
        hand.merge(members)

    carried = lambda hand: hand.score[hand.live]  # noqa: E731
    return {0: [first], 5: best(carried, count(keep**0.911)), 10: best(carried, count(keep))}


def _flowing(keep: float, here: Callable[[Hand, int], Tensor]) -> Any:
    def cut(layer: int, number: int) -> Act:
        def act(hand: Hand) -> None:
            now = here(hand, layer)
            gathered = now if hand.score is None else 0.5 * hand.score[hand.live] + 0.5 * now
            hand.score = torch.zeros(N).index_put((hand.live,), gathered)
            hand.keep(top(gathered, number))

        return act

    powers = {0: 0.167, 3: 0.333, 5: 0.5, 7: 0.667, 9: 0.833, 11: 1}
    return {0: [cut(layer, count(keep**power)) for layer, power in powers.items()]}


def flowcut(keep: float) -> Any:
    def here(hand: Hand, layer: int) -> Tensor:
        tokens = hand.live + 1
        given, value = hand.tower[layer].mean(0)[0, tokens], hand.tower_values[layer]
        alike = [(value[0, head] @ value[[0, *tokens], head].T).softmax(0)[1:] for head in range(2)]
        like = sum(alike) / 2
        return (given / given.sum() + like / like.sum()) * value[tokens].mean(1).abs().sum(1)

    return _flowing(keep, here)


def flowcut_no_cls(keep: float) -> Any:
    def here(hand: Hand, layer: int) -> Tensor:
        tokens = hand.live + 1
        return hand.tower[layer].mean((0, 1))[tokens] * hand.tower_values[layer][tokens].mean(1).abs().sum(1)

    return _flowing(keep, here)


def m3_pool(keep: float) -> Any:
    def act(hand: Hand) -> None:
        cell = floor(sqrt(N / count(keep)) + 0.5)
        made = {}
        for row in range(0, SIDE - cell + 1, cell):
            for column in range(0, SIDE - cell + 1, cell):
                own = [(row + y) * SIDE + column + x for y in range(cell) for x in range(cell)]
                made[own[(cell - 1) // 2 * (cell + 1)]] = dict.fromkeys(own, 1 / cell**2)
        hand.merge(made)

    return {0: [act]}


def visionzip(keep: float) -> Any:
    def act(hand: Hand) -> None:
        kept = top(asked_by_cls(hand, 10), round(0.84 * count(keep)))
        members: dict[int, dict[int, float]] = {token: {token: 1.0} for token in kept}
        rest = [token for token in range(N) if token not in kept]
        number = count(keep) - len(kept)
        targets = [rest[i * (len(rest) // number)] for i in range(number)]
        keys = hand.tower_keys[10][1:].mean(1)
        near: dict[int, list[int]] = {target: [] for target in targets}
        for token in rest:
            if token not in targets:
                near[targets[int(cosine(keys[[token]], keys[targets]).argmax())]].append(token)
        for target, own in near.items():
            members[target] = {target: 0.5, **dict.fromkeys(own, 0.5 / len(own))} if own else {target: 1.0}
        hand.merge(members)

    return {0: [act]}


def cdpruner(keep: float) -> Any:
    def act(hand: Hand) -> None:
        like = like_text(hand).double()
        worth = (like - like.min() + 1e-6) / (like.max() - like.min())
        kernel = worth[:, None] * cosine(hand.now().double(), hand.now().double()) * worth
        chosen: list[int] = []
        while len(chosen) < count(keep):
            gain = {i: float(kernel[[*chosen, i]][:, [*chosen, i]].logdet()) for i in range(N) if i not in chosen}
            chosen.append(max(gain, key=lambda i: gain[i]))
        hand.keep(sorted(chosen))

    return {0: [act]}


def uniform(keep: float) -> Any:
    number = count(keep)
    return {0: [lambda hand: hand.keep([(2 * i + 1) * N // (2 * number) for i in range(number)])]}


def random(keep: float) -> Any:
    return {0: best(lambda hand: torch.rand(N, generator=torch.Generator().manual_seed(0)), count(keep))}
