"""The methods that prune visual tokens inside of the decoder, as those of `token_methods`."""

from __future__ import annotations

from functools import partial
from math import sqrt
from typing import Any

import torch
from by_hand import Hand, N, cosine, top
from token_methods import Act, asked_by_last, asked_by_text, best, count, recycled
from torch import Tensor


def fastv(keep: float) -> Any:
    return {2: best(lambda hand: asked_by_last(hand, 1), count(keep))}


def pyramiddrop(keep: float) -> Any:
    powers = {4: 0.3333, 8: 0.6667, 12: 1}
    return {
        layer: best(partial(lambda hand, layer: asked_by_last(hand, layer - 1), layer=layer), count(keep**power))
        for layer, power in powers.items()
    }


def transprune(keep: float) -> Any:
    def moved(hand: Hand, layers: tuple[int, ...]) -> Tensor:
        total = torch.zeros(len(hand.live))
        for layer in layers:
            for given, gave in hand.moved[layer]:
                own = hand.at(layer, hand.live + hand.picture[0])
                one, other = given[own], gave[own]
                angle = (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1))
                total += other.norm(dim=1) / one.norm(dim=1) * (1 - angle).softmax(0)
        return total / total.sum()

    def scored(hand: Hand, layer: int, layers: tuple[int, ...]) -> Tensor:
        asked = asked_by_text(hand, layer - 1)
        return moved(hand, layers) + asked / asked.sum()

    first = best(lambda hand: scored(hand, 4, (3,)), count(keep**0.0642))
    second = best(lambda hand: scored(hand, 4, (3,)), count(keep**0.226))
    return {4: first + second, 6: best(lambda hand: scored(hand, 6, (3, 4, 5)), count(keep))}


def aim(keep: float) -> Any:
    def halved(number: int) -> Act:
        def act(hand: Hand) -> None:
            states = hand.now()
            evens, odds = list(range(0, len(states), 2)), list(range(1, len(states), 2))
            like = cosine(states[evens], states[odds])
            leave = top(like.max(1).values, len(states) - number)
            members = {i: [i] for i in range(len(states)) if i % 2 or i // 2 not in leave}
            for i in leave:
                members[odds[int(like[i].argmax())]].append(evens[i])
            hand.merge({i: dict.fromkeys(own, 1 / len(own)) for i, own in members.items()})

        return act

    def ranked(hand: Hand, layer: int) -> Tensor:
        logits = hand.looked(layer, hand.live + hand.picture[0], hand.logits)
        graph, found = (logits / 0.1).softmax(-1), []
        for head in graph:
            weight = torch.full((len(head),), 1 / len(head))
            for _ in range(5):
                weight = head.T @ weight
            found.append(weight.square())
        return (sum(found) / len(found)).sqrt()  # pyright: ignore

    powers = [(9, 1.096), (9, 1.208), (10, 1.339), (10, 1.5), (11, 1.708), (11, 2), (12, 2.5)]
    plan: dict[int, list[Act]] = {0: [halved(count(sqrt(keep))), halved(count(keep))]}
    for layer, power in powers:
        score = partial(lambda hand, layer: ranked(hand, layer - 1), layer=layer)
        plan.setdefault(layer, []).extend(best(score, max(1, count(keep**power))))
    return plan | {13: [lambda hand: hand.keep([])]}


def sparsevlm(keep: float) -> Any:
    def at(layer: int, number: int) -> list[Act]:
        def act(hand: Hand) -> None:
            match = (hand.now() @ hand.now(hand.text).T).softmax(1).mean(0)
            raters = hand.text[match > match.mean()]
            score = hand.looked(layer - 1, raters).mean((0, 1))
            kept = top(score, number)
            gone = [i for i in range(len(score)) if i not in kept]
            if not gone:
                return
            good = [gone[i] for i in top(score[gone], min(int(len(gone) * 0.3) + 1, len(gone)))]
            recycled(hand, kept, good, len(good) // 10 + 1)

        return [act]

    return {1: at(1, count(keep**0.395)), 4: at(4, count(keep**0.64)), 8: at(8, count(keep))}


def dart(keep: float) -> Any:
    def act(hand: Hand) -> None:
        states, words = hand.now(), hand.now(hand.text)
        sizes = hand.keys[1][hand.at(1, hand.live + hand.picture[0])].abs().sum((1, 2))
        chosen = sizes.argsort(descending=True)[:4].tolist()
        loud = words.abs().sum(1).argsort(descending=True)[:4].tolist()
        pivots = [states[i] for i in chosen] + [words[i] for i in loud]
        share, more = divmod(count(keep) - len(chosen), len(pivots))
        for number, pivot in enumerate(pivots):
            left = [i for i in range(N) if i not in chosen]
            like = cosine(pivot[None], states)[0]
            chosen += sorted(left, key=lambda i: float(like[i]))[: share + (number < more)]
        hand.keep(sorted(chosen))

    return {2: [act]}


def lvlm_csp(keep: float) -> Any:
    def few(hand: Hand) -> None:
        number = count(keep**0.6)
        hand.whole = hand.columns, hand.states  # pyright: ignore[reportAttributeAccessIssue]
        hand.keep([i * (N // number) for i in range(number)])

    def back(hand: Hand) -> None:
        columns, states = hand.whole  # pyright: ignore[reportAttributeAccessIssue]
        states = states.clone()
        states[torch.isin(columns, hand.columns)] = hand.states
        hand.columns, hand.states = columns, states

    return {1: [few], 6: [back], 10: best(lambda hand: asked_by_last(hand, 9), count(keep))}
