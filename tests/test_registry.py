"""Parts register from their own files, and their signatures are their arguments."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from compress import registry as module
from compress.errors import InputError
from compress.registry import Registry, criteria, scopes
from compress.registry.metadata import CriterionMetadata
from compress.registry.scope import Scope
from compress.report.listing import listing

PARTS = {
    "__init__": '"""Parts."""',
    "wanda": """
        from __future__ import annotations
        from typing import TYPE_CHECKING, Literal
        from PARTS import criteria
        from compress.registry.scope import Scope
        if TYPE_CHECKING:
            from torch import Tensor

        @criteria.add("wanda", scope=Scope.WEIGHTS, needs=("input_norm",))
        def wanda(weight: Tensor, input_norm: Tensor, *, power: float = 1.0, over: Literal["rows", "all"] = "rows"):
            '''|W| · ‖x‖₂.

            More words.
            '''
            return weight, input_norm, power, over
    """,
    "deeper/__init__": "",
    "deeper/taylor": """
        from PARTS import criteria
        from compress.registry.scope import Scope

        @criteria.add("taylor", scope=Scope.UNITS)
        class Taylor:
            def __init__(self, weight, *, order: int):
                self.weight, self.order = weight, order
    """,
}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry over a package of its own, made of files."""
    for name, text in PARTS.items():
        file = tmp_path / "parts_of_test" / f"{name}.py"
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text("\n".join(line.removeprefix("        ") for line in text.splitlines()))
    registry = Registry("criterion", "parts_of_test", CriterionMetadata)
    module = type(sys)("PARTS")
    module.criteria = registry  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "PARTS", module)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "parts_of_test"]:
        monkeypatch.delitem(sys.modules, name)
    yield registry
    for name in [name for name in sys.modules if name.partition(".")[0] == "parts_of_test"]:
        del sys.modules[name]


def test_the_package_is_walked_at_the_first_lookup(registry: Registry) -> None:
    assert "parts_of_test" not in sys.modules
    assert registry.names() == ["taylor", "wanda"]


def test_an_entry_knows_its_part(registry: Registry) -> None:
    entry = registry.get("wanda")
    assert entry.about == "|W| · ‖x‖₂."
    assert entry.meta == CriterionMetadata(scope=Scope.WEIGHTS, needs=("input_norm",))
    assert list(entry.parameters) == ["power", "over"]
    assert entry.parameters["power"].default == 1.0
    assert entry.parameters["over"].annotation == Literal["rows", "all"]  # a string in that module


def test_bind_converts_and_fills_in(registry: Registry) -> None:
    assert registry.get("wanda").bind({"power": 2})("w", "x") == ("w", "x", 2.0, "rows")
    assert registry.get("taylor").bind({"order": 2})("w").order == 2
    assert registry.get("wanda").bind({}).keywords == {}  # defaults stay the function's own


def test_an_unknown_name_gets_the_nearest_and_the_list(registry: Registry) -> None:
    with pytest.raises(InputError) as caught:
        registry.get("wnada")
    assert str(caught.value) == "unknown criterion 'wnada'; did you mean 'wanda'? (known: taylor, wanda)"


def test_bind_names_every_wrong_argument(registry: Registry) -> None:
    with pytest.raises(InputError) as caught:
        registry.get("wanda").bind({"pwoer": 1, "over": "row", "power": "much"})
    assert str(caught.value).splitlines() == [
        "criterion wanda: power: input should be a valid number, unable to parse string as a number, not 'much'",
        "criterion wanda: over: input should be 'rows' or 'all', not 'row'; did you mean 'rows'?",
        "criterion wanda: pwoer: unknown argument; did you mean 'power'? (known: over, power)",
    ]
    with pytest.raises(InputError, match="criterion taylor: argument 'order' is missing"):
        registry.get("taylor").bind({})
    with pytest.raises(InputError, match="weight: unknown argument"):  # positional: given by the engine, not a recipe
        registry.get("taylor").bind({"order": 1, "weight": 3})


def test_a_name_is_given_once(registry: Registry) -> None:
    registry.names()
    with pytest.raises(ValueError, match="criterion 'wanda' is both"):

        @registry.add("wanda", scope=Scope.WEIGHTS)
        def another() -> None: ...


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"reduce": "mean"}, r"unknown metadata 'reduce' \(known: kinds, needs, on, paper, scope, when\)"),
        ({"on": "in"}, "criterion 'new': metadata 'scope' is missing"),
        ({"scope": "weights"}, "metadata scope='weights': .*instance of Scope"),
        ({"scope": Scope.WEIGHTS, "on": "out"}, "metadata on='out': .*'in' or 'all'"),
        ({"scope": Scope.WEIGHTS, "needs": "input_norm"}, "metadata needs='input_norm': .*tuple"),
        ({"scope": Scope.WEIGHTS, "when": {"order": ["fisher"]}}, "metadata when="),
    ],
)
def test_metadata_is_what_the_kind_of_part_has(registry: Registry, given: dict[str, object], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        registry.add("new", **given)


def test_statistics_follow_the_arguments() -> None:
    when = {"coactivation": ("pairs",), "order": {"second": ("fisher", "gradient")}}
    meta = CriterionMetadata(scope=Scope.WEIGHTS, needs=("gradient",), when=when)
    assert meta.statistics() == ("gradient",)
    assert meta.statistics({"coactivation": 0.0, "order": "first"}) == ("gradient",)
    assert meta.statistics({"coactivation": 0.5, "order": "second"}) == ("gradient", "pairs", "fisher")


def test_every_scope_has_a_file_that_scores_it_and_is_used() -> None:
    assert sorted(map(str, Scope)) == scopes.names()
    assert {criteria.get(name).meta.scope for name in criteria.names()} == set(Scope)


@pytest.mark.parametrize("scope", Scope)
def test_what_a_scope_ranks(scope: Scope) -> None:
    kinds = ["heads", "channels", "hidden", "experts", "layers"]
    anything = {Scope.WEIGHTS: kinds, Scope.FAMILIES: kinds}
    anything |= dict.fromkeys((Scope.INPUTS, Scope.UNITS, Scope.LEARNED), kinds[:-1])
    only = {Scope.EXPERTS: ["experts"], Scope.DISTANCES: ["experts"], Scope.LAYERS: ["layers"], Scope.UPDATE: []}
    only |= {Scope.CONSUMERS: ["heads", "channels"], Scope.GAINS: ["channels", "hidden"]}
    assert [kind for kind in kinds if scope.ranks(kind)] == (anything | only)[scope]


def test_a_criterion_may_rank_fewer_kinds_than_its_scope() -> None:
    meta = CriterionMetadata(scope=Scope.LEARNED, kinds=("channels", "layers"))
    assert meta.ranks("channels") and not meta.ranks("heads") and not meta.ranks("layers")


def test_a_failed_import_is_not_forgotten(registry: Registry, tmp_path: Path) -> None:
    broken = tmp_path / "parts_of_test" / "broken.py"
    broken.write_text("import nothing_like_this")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="nothing_like_this"):
            registry.names()


def test_torch_is_not_imported_before_a_command_needs_it() -> None:
    code = "import sys, compress.registry, compress.recipe, compress.console; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_registry_is_listed_by_its_name_alone(registry: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "gadgets", registry, raising=False)
    _, everything = listing(None)
    assert [entry["name"] for entry in everything["gadgets"]] == ["taylor", "wanda"]
    assert everything["gadgets"][1] == {
        "name": "wanda",
        "about": "|W| · ‖x‖₂.",
        "arguments": {"power": 1.0, "over": "rows"},
        "needs": ["input_norm"],
    }
    assert {"criteria", "rules", "recipes"} <= everything.keys()
