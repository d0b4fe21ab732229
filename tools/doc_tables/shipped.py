"""The recipes that ship: whose method each is, what it removes, what it needs, and who opens the result."""

from __future__ import annotations

import re
from typing import Any

from compress import registry
from compress.files.shipped import names
from compress.recipe.part import Part
from compress.recipe.read import read_recipe
from compress.recipe.tokens import FOLDER

from .markdown import paper, table
from .parts import needs

ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})")
REGISTRIES = {
    "by": (registry.criteria,),
    "stay": (registry.criteria,),
    "allocate": (registry.allocators, registry.ratios),
    "repair": (registry.repairs,),
}


def token_presets() -> str:
    """The recipes that prune visual tokens."""
    rows = []
    for name in names():
        if name.startswith(FOLDER):
            found = read_recipe(name)
            (step,) = found.steps
            places = [stage.at if isinstance(stage.at, str) else "decoder" for stage in step.tokens]  # pyright: ignore
            where = " and ".join(dict.fromkeys("before the decoder" if at == "features" else "inside" for at in places))
            rows.append(
                (f"`{name.removeprefix(FOLDER)}`", found.about, where, " ".join(map(paper, ARXIV.findall(found.about))))
            )
    return table(("preset", "what it does", "where", "paper"), rows)


def recipes() -> str:
    """Every recipe of the wheel but presets for visual tokens, those of the contrasts last."""
    rows = []
    for name in sorted(names(), key=lambda name: ("/" in name, name)):
        if name.startswith(FOLDER):
            continue
        found = read_recipe(name)
        papers = ARXIV.findall(found.about)
        about = found.about.partition(" (")[0].partition(";")[0]
        inner = [own for step in found.steps for own in _inside(step)]
        steps = [step.model_dump(mode="python") for step in inner]
        rows.append(
            (
                f"`{name}`",
                about,
                ", then ".join(dict.fromkeys(map(_removed, steps))),
                _needed(inner),
                "stock diffusers" if inner != found.steps else _opened(found.steps),
                " ".join(map(paper, papers)),
            )
        )
    return table(("recipe", "what it does", "removes", "needs", "the result opens with", "paper"), rows)


def _inside(step: Any) -> list[Any]:
    """The step, or those of a pipeline's components."""
    components: dict[str, list[Any]] | None = getattr(step, "components", None)
    return [step] if components is None else [own for steps in components.values() for own in steps]


def _removed(step: dict[str, Any]) -> str:
    if "tokens" in step:
        return "nothing; visual tokens leave"
    if "prune" not in step:
        return f"nothing; tokens skip {step['skip']}"
    units = step["prune"]
    return units if isinstance(units, str) else ", ".join(units)


def _needed(steps: list[Any]) -> str:
    """`weights`, `text`, `gradients`, in this order."""
    found: set[str] = set()
    for step in steps:
        for key, kinds in REGISTRIES.items():
            part = getattr(step, key, None)
            if isinstance(part, Part):
                kind = next(kind for kind in kinds if part.name in kind.names())
                found.update(needs(kind.get(part.name)))
        if getattr(step, "prune", None) == "vocab":  # counts tokens, and the model does not run
            found.add("text")
        elif hasattr(step, "tokens"):
            continue
        elif not isinstance(getattr(step, "by", None), Part):  # kinds that calibrate in a way of their own
            found.update(("weights", "text"))
    return ", ".join(word for word in ("weights", "text", "gradients") if word in found) or "the config alone"


def _uneven(step: Any) -> bool:
    """Whether layers may come to differ in width."""
    units = getattr(step, "widths", None)
    spared = units is not None and bool(step.skip or step.skip_layers) and step.prune != ["layers"]
    return units == "per-layer" or spared


def _opened(steps: list[Any]) -> str:
    last = steps[-1]
    if getattr(last, "base", None) is not None:
        return "`compress apply-delta`"
    if getattr(last, "prune", None) is None:
        return "stock transformers (dense); `compress.load` obeys"
    if any(map(_uneven, steps)):
        return "transformers and the modeling file beside it"
    return "stock transformers"
