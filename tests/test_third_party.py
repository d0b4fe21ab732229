"""Parts of another distribution are found by its entry point, and work like this package's own."""

import sys

import plugin
import pytest
import torch
import zoo

from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe
from compress.registry import Registry, criteria

PARTS = """
    from torch import Tensor
    from compress.registry import criteria
    from compress.registry.scope import Scope

    @criteria.add("loudness", scope=Scope.WEIGHTS, on="in")
    def loudness(weight: Tensor, *, power: float = 1.0) -> Tensor:
        '''|w| to a power.'''
        return weight.abs() ** power
"""


@pytest.fixture(autouse=True)
def registries(monkeypatch, tmp_path_factory):
    """What a test registers is forgotten after it."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(criteria, "_entries", dict(criteria._entries))
    yield
    for name in ("loud_parts", "broken_parts", "rival_parts"):
        sys.modules.pop(name, None)


def walk_a_registry(folder, monkeypatch):
    """The first lookup in a registry that nothing has looked into."""
    (folder / "parts_of_nobody").mkdir()
    (folder / "parts_of_nobody" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "parts_of_nobody", raising=False)
    return Registry("toy", "parts_of_nobody").names()


def test_a_recipe_uses_a_criterion_of_another_distribution(tmp_path, monkeypatch):
    criteria.names()
    plugin.install("loud-parts", PARTS, tmp_path, monkeypatch)
    assert walk_a_registry(tmp_path, monkeypatch) == []
    assert criteria.get("loudness").about == "|w| to a power."
    dense = zoo.save("llama", tmp_path / "model")
    text = "steps: [{prune: channels, by: {loudness: {power: 2}}, remove: 25%}]"
    run(parse_recipe(text), tmp_path / "model", tmp_path / "out", Options(evaluate=False))
    pruned = open_checkpoint(tmp_path / "out")
    for layer in range(3):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        loudest = dense.read(name).square().sum(0).topk(36).indices.sort().values
        assert torch.equal(pruned.read(name), dense.read(name)[:, loudest])


def test_a_distribution_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    plugin.install("broken-parts", "import nothing_like_this", tmp_path, monkeypatch)
    with pytest.raises(InputError) as caught:
        walk_a_registry(tmp_path, monkeypatch)
    assert str(caught.value) == (
        "broken-parts 1.0: its parts for compress (broken_parts, entry point 'parts' in compress.parts) cannot be "
        "imported: ModuleNotFoundError: No module named 'nothing_like_this'; mend or update it, or uninstall it with "
        "`pip uninstall broken-parts`"
    )


def test_a_name_of_this_package_is_not_taken(tmp_path, monkeypatch):
    plugin.install("rival-parts", PARTS.replace("loudness", "wanda"), tmp_path, monkeypatch)
    with pytest.raises(InputError, match=r"rival-parts 1\.0.*'wanda' is both compress\.criteria\.wanda\.wanda"):
        walk_a_registry(tmp_path, monkeypatch)
