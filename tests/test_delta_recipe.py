"""Mistakes in a recipe for a task vector."""

import pytest

from compress.errors import InputError
from compress.recipe.read import parse_recipe


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("[{prune: delta, base: a/b, remove: 90%}, {prune: heads, by: random, remove: 20%}]", "stands alone"),
        ("[{prune: delta, remove: 90%}]", "base.*missing"),
        ("[{prune: delta, base: a/b, by: dare, q: rows, remove: 90%}]", "`q` is for `by: darex`"),
        ("[{prune: delta, base: a/b, by: darx, remove: 90%}]", "did you mean 'darex'"),
        ("[{prune: delta, base: a/b, remove: 90%, sed: 3}]", "unknown key"),
    ],
)
def test_mistakes_in_the_recipe(steps, words):
    with pytest.raises(InputError, match=words):
        parse_recipe(f"steps: {steps}")
