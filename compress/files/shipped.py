"""The recipes that come with the program, by name: `flap-20`, `contrasts/structured`."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
RECIPES = next(folder for folder in (_PACKAGE / "recipes", _PACKAGE.parent / "recipes") if folder.is_dir())
"""Where they lie: inside the package where that was built, beside it in the source tree."""


def names() -> list[str]:
    """Of every recipe, sorted; those in a folder have its name before theirs."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))


def shipped(name: str) -> Path | None:
    """The file of the recipe `name`; None where there is none."""
    return RECIPES / f"{name}.yaml" if name in names() else None


def which() -> str:
    """What may stand where a recipe is asked for, in words; a folder of recipes is named once."""
    short = dict.fromkeys(name if "/" not in name else f"{name.partition('/')[0]}/…" for name in names())
    return f"a recipe is a .yaml file or one of: {', '.join(short)}; `compress ls recipes` says what each does"
