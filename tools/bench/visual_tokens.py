"""How many questions a small vision–language model still answers when its language model reads fewer image tokens.

    python tools/bench/visual_tokens.py         # an hour the first time; goes on where it was stopped
    python tools/bench/visual_tokens.py oracle  # this only; what docs/visual_tokens.json has stays
    python tools/bench/visual_tokens.py --read  # the table and the plot again

The model is that of `tools/joined_vlm.py`, the pictures are fresh ones. The references are made here, with plain
tensors: tokens drawn at random, spread evenly over the picture, or chosen by who knows what is asked (the oracle: the
object that the question is about, then the others, then background). Kept tokens keep their positions. Then every
preset that ships, with this share of the tokens left in the end; "read" is the mean share that layers of the language
model read, of which there are four.
"""

from __future__ import annotations

import json
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from apart import ROOT, table
from joined.answering import Exam, Marks, evaluate, evaluate_generated, exam
from joined.questions import Question
from joined.scenes import Scene
from joined.training import bfloat16
from joined_vlm import folder, load
from torch import Tensor
from visual_tokens_plot import plot

import compress
import compress.runtime
from compress.files.shipped import names
from compress.recipe.read import read_recipe
from compress.recipe.token_stage import Stage
from compress.recipe.tokens import FOLDER
from compress.runtime.tokens.expand import expanded
from compress.runtime.tokens.find import check, places_of

FILE = ROOT / "docs" / "visual_tokens.json"
PICTURES = 120
SHARES = (0.11, 0.25, 0.5)
"""Of the tokens that are kept, in the order in which they are run."""
OBJECT = 0.2
"""The share of a patch that an object must cover to count as a part of it."""
Rank = Callable[[Scene, Question, random.Random], Sequence[int]]
Rows = Sequence[tuple[Scene, Question]]


def anywhere(scene: Scene, question: Question, draw: random.Random) -> list[int]:
    """All patches in an order drawn anew for every question."""
    return draw.sample(range(scene.grid**2), scene.grid**2)


def evenly(scene: Scene, question: Question, draw: random.Random) -> tuple[int, ...]:
    """Each patch is as far as can be from those before it."""
    return _spread(scene.grid)


def known(scene: Scene, question: Question, draw: random.Random) -> list[int]:
    """The patches of the object that is asked about, those of the others in turn, background evenly."""
    covered = scene.coverage()
    own = [[int(i) for i in np.argsort(-row, kind="stable") if row[i] > OBJECT] for row in covered]
    first = [] if question.about is None else own.pop(question.about)
    others = [i for turn in zip_longest(*own) for i in turn if i is not None]
    return list(dict.fromkeys([*first, *others, *_spread(scene.grid)]))


@cache
def _spread(grid: int) -> tuple[int, ...]:
    """Farthest-point order of the patches of `grid` rows, from the center on."""
    places = np.stack(np.divmod(np.arange(grid**2), grid), 1)
    order = [grid**2 // 2]
    far = np.full(grid**2, np.inf)
    while len(order) < grid**2:
        far = np.minimum(far, ((places - places[order[-1]]) ** 2).sum(1))
        order.append(int(far.argmax()))
    return tuple(order)


REFERENCES: dict[str, Rank] = {"oracle": known, "uniform": evenly, "random": anywhere}


class Keeper:
    """Drops image tokens in front of a Llava's language model, the same number in all rows of a call."""

    def __init__(self, rank: Rank, share: float) -> None:
        self.rank, self.share = rank, share
        self.draw = random.Random(0)
        self.order: list[Sequence[int]] = []
        self.image = torch.empty(0)

    def hear(self, rows: Rows) -> None:
        """What the rows of the next call are about."""
        self.order = [self.rank(scene, question, self.draw) for scene, question in rows]

    @contextmanager
    def on(self, model: Any) -> Iterator[None]:
        """Attached to the model for a while."""

        def see(module: Any, args: Any, given: dict[str, Any]) -> None:
            self.image = given["input_ids"] == model.config.image_token_id

        def drop(module: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, {**given, **self._shorter(given)}

        hooks = [
            model.model.register_forward_pre_hook(see, with_kwargs=True),
            model.model.language_model.register_forward_pre_hook(drop, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _shorter(self, given: dict[str, Any]) -> dict[str, Tensor]:
        """The language model's inputs without what goes, `inputs_embeds` `[rows, length, width]` among them."""
        rows, length = self.image.shape
        stays = ~self.image
        for row, order in enumerate(self.order):
            places = self.image[row].nonzero().flatten()
            stays[row, places[list(order[: round(self.share * len(order))])]] = True
        kept = stays.nonzero()[:, 1].view(rows, -1)
        positions = given.get("position_ids")
        positions = torch.arange(length).expand(rows, -1) if positions is None else positions.expand(rows, -1)
        return {
            "inputs_embeds": given["inputs_embeds"].gather(
                1, kept[..., None].expand(-1, -1, given["inputs_embeds"].shape[-1])
            ),
            "attention_mask": given["attention_mask"].gather(1, kept),
            "position_ids": positions.gather(1, kept),
        }


@cache
def subject() -> tuple[Any, Any, Exam]:
    """Model, processor, and the questions."""
    return *load(folder()), exam(PICTURES)


def dense() -> Marks:
    """With all its tokens."""
    with bfloat16():
        return evaluate(*subject())


def blind() -> Marks:
    """Shown the picture of other questions."""
    pictures = [one.picture for one in subject()[2].scenes]
    with bfloat16():
        return evaluate(*subject(), pictures=pictures[1:] + pictures[:1])


def pruned(rank: Rank, share: float) -> Marks:
    """With this share of its image tokens, the first by a rank."""
    keeper = Keeper(rank, share)
    with bfloat16(), keeper.on(subject()[0]):
        return evaluate(*subject(), before=keeper.hear)


def ruled(name: str, share: float) -> Marks:
    """Under a preset that ships."""
    model, processor, questions = subject()
    rule = {"kind": "tokens", "stages": [stage.written() for stage in _stages(name, share)]}
    model.config.compress = {"version": 1, "rules": [rule]}
    try:
        with bfloat16(), compress.runtime.attach(model):
            return evaluate_generated(model, processor, questions)
    finally:
        del model.config.compress


def read_share(name: str, share: float) -> float:
    """The mean share of visual tokens over the language model's layers."""
    if not name.startswith("`"):
        return share
    stages = _stages(name.strip("`"), share)
    left, began, shares = 1.0, 1.0, []
    for layer in range(len(places_of(subject()[0]).layers)):
        for stage in (one for one in stages if one.layer == layer):
            left = (
                {"none": 0.0, "restore": began}[stage.select] if isinstance(stage.select, str) else stage.keep or left
            )
        began = left if layer == 0 else began
        shares.append(left)
    return float(np.mean(shares))


def _stages(name: str, share: float) -> list[Stage]:
    places = places_of(subject()[0])
    (step,) = read_recipe(f"tokens/{name}").steps
    stages = expanded(step.asked[0], share, places)  # pyright: ignore[reportAttributeAccessIssue]
    check(places, stages)
    return stages


def settings() -> Iterator[tuple[str, float, Callable[[], Marks]]]:
    """Name, share of the tokens, and what measures it."""
    yield "dense", 1.0, dense
    yield "blind", 1.0, blind
    for share in SHARES:
        for name, rank in REFERENCES.items():
            yield name, share, lambda rank=rank, share=share: pruned(rank, share)
    for share in SHARES:
        for name in names():
            if name.startswith(FOLDER) and name != "tokens/flowcut-no-cls":  # the tower has a class token
                own = name.removeprefix(FOLDER)
                yield f"`{own}`", share, lambda own=own, share=share: ruled(own, share)


def row(name: str, share: float, marks: Marks) -> dict[str, Any]:
    """What is kept of a measurement; `values` are the pictures', in their order, so that settings can be paired."""
    kinds = {kind: [round(value, 4) for value in found] for kind, found in marks.by_kind().items()}
    return {
        "setting": name,
        "keep": share,
        "read": round(read_share(name, share), 3),
        "kinds": kinds,
        "values": [round(value, 3) for value in marks.pictures],
    }


def overview(rows: list[dict[str, Any]]) -> None:
    """A line for each setting, best first at the least share: what is right at every share, in percent."""
    found = {(one["setting"], one["keep"]): one for one in rows if one["keep"] in SHARES}
    names = sorted({name for name, _ in found}, key=lambda name: -float(np.mean(found[name, SHARES[0]]["values"])))
    cells = []
    for name in names:
        own = [found[name, share] for share in SHARES]
        cells.append([name, *(_cell(np.array(one["values"])) for one in own), f"{own[0]['read']:.0%}"])
    table(["", *(f"{share:.0%} left" for share in SHARES), f"read by a layer at {SHARES[0]:.0%}"], cells)


def show(rows: list[dict[str, Any]]) -> None:
    """A table, best first at each share, in percent with standard errors; and what each loses, picture by picture."""
    kinds = sorted({kind for one in rows for kind in one["kinds"]})
    whole = next((one["values"] for one in rows if one["setting"] == "dense"), None)
    cells = []
    for one in sorted(rows, key=lambda one: (-one["keep"], -float(np.mean(one["values"])))):
        lost = _cell(np.subtract(whole, one["values"])) if whole else "–"
        per_kind = ["{:.0f} ± {:.0f}".format(*(100 * value for value in one["kinds"][kind])) for kind in kinds]
        cells.append(
            [
                one["setting"],
                f"{one['keep']:.0%}",
                f"{one['read']:.0%}",
                _cell(np.array(one["values"])),
                lost,
                *per_kind,
            ]
        )
    table(["", "tokens", "read", "right", "lost", *kinds], cells)


def _cell(values: np.ndarray) -> str:
    return f"{100 * values.mean():.1f} ± {100 * values.std(ddof=1) / len(values) ** 0.5:.1f}"


def main(*words: str) -> None:
    """Run what is missing, of the named settings where some are, and show all there is."""
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else []
    if words != ("--read",):
        every = list(settings())
        if unknown := set(words) - {name for name, *_ in every}:
            sys.exit(f"{min(unknown)}: no such setting; choose from {', '.join(dict.fromkeys(n for n, *_ in every))}")
        for name, share, measure in every:
            if (words and name not in words) or any((one["setting"], one["keep"]) == (name, share) for one in rows):
                continue
            rows.append(row(name, share, measure()))
            print(name, f"{share:.0%}", _cell(np.array(rows[-1]["values"])), flush=True)
            FILE.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    overview(rows)
    show(rows)
    plot(rows, FILE.with_name("visual-tokens.png"))


if __name__ == "__main__":
    main(*sys.argv[1:])
