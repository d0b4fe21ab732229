"""What criteria learn of a model: once, kept in the cache and where a recipe says; PruneNet's policy as the example."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import zoo

from compress.criteria.prunenet import policy
from compress.errors import InputError
from compress.execution.baseline import Original
from compress.execution.context import Context
from compress.model.model import Model
from compress.recipe.read import parse_recipe
from compress.registry import criteria
from compress.registry.scope import Scope
from compress.score.learning import Learner
from compress.steps.units.decide import decide, families_of, wants
from compress.steps.units.in_sequence import in_sequence


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def runs(monkeypatch) -> list[policy.Training]:
    """Every training that took place."""
    found: list[policy.Training] = []
    ran = policy.Training.run
    monkeypatch.setattr(policy.Training, "run", lambda self: (found.append(self), ran(self))[1])
    return found


def recipe(remove="30%", seed=0, more="", **arguments):
    given = json.dumps({"episodes": 2, **arguments})
    return parse_recipe(
        f"seed: {seed}\ncalibrate: {{data: random, samples: 4, length: 12}}\n"
        f"steps:\n  - {{prune: channels, by: {{prunenet: {given}}}, remove: {remove}{more}}}\n"
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return Model.of(zoo.save("llama", tmp_path_factory.mktemp("llama")))


def kept(source, asked):
    context = Context(source, source, Original(source.graph), asked, "cpu")
    families = families_of(source.graph, asked.steps[0])
    if asked.steps[0].propagate == "pruned":
        return in_sequence(context, asked.steps[0], families)[0].kept
    return decide(context, asked.steps[0], families, {}).kept


def test_one_policy_is_good_for_every_share(llama, runs):
    masks = [kept(llama, recipe(remove)) for remove in ("20%", "30%", "40%", "50%")]
    assert len(runs) == 1
    for more, fewer in pairwise(masks):
        assert all((mask >= fewer[name]).all() and mask.sum() > fewer[name].sum() for name, mask in more.items())
    behind = kept(llama, recipe(more=", propagate: pruned, repair: bias"))
    assert len(runs) == 1 and all((behind[name] == mask).all() for name, mask in masks[1].items())
    draws = [kept(llama, recipe(draw=seed)) for seed in (0, 0, 1)]
    first = [mask["model.layers.0.mlp.channels"].tolist() for mask in draws]
    assert len(runs) == 1 and first[0] == first[1] != first[2] and sum(first[0]) == sum(first[2])
    kept(llama, recipe(train_at="30%"))
    kept(llama, recipe(seed=1))
    kept(llama, recipe(more=", skip_layers: [0]"))
    assert len(runs) == 4


def test_a_damaged_file_of_the_cache_is_learned_anew(llama, runs, tmp_path, capsys):
    first = kept(llama, recipe())
    (file,) = (tmp_path / "cache" / "learned").iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    second = kept(llama, recipe())
    assert len(runs) == 2 and "checksum" in capsys.readouterr().err
    assert all((mask == second[name]).all() for name, mask in first.items())


def test_a_named_file_is_written_and_then_read(llama, runs, tmp_path, monkeypatch):
    file = tmp_path / "policy.safetensors"
    first = kept(llama, recipe(policy=str(file), train_at="35%"))
    assert file.stat().st_size < 2000
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "elsewhere"))
    second = kept(llama, recipe("40%", policy=str(file), seed=7))
    assert len(runs) == 1 and all((mask >= second[name]).all() for name, mask in first.items())
    with pytest.raises(InputError, match=r"policy.safetensors: learned with train_at 35%, and the recipe says 30%"):
        kept(llama, recipe(policy=str(file), train_at="30%"))
    narrow = Model.of(zoo.save("llama", tmp_path / "narrow", hidden_size=16))
    with pytest.raises(InputError, match=r"policy.safetensors: a policy of 16 columns .* the file's is \[\d+\]; name"):
        kept(narrow, recipe(policy=str(file)))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: b"nothing of the kind", "policy: (not|truncated)"),
        (lambda data: data[:-3], "policy: "),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "policy: damaged, its checksum is another; name a file"),
        (lambda data: data.replace(b"prunenet", b"prunenot"), "criterion prunenot learned it, not prunenet"),
        (lambda data: data.replace(b"compress_learned", b"compress_unheard"), "not what a criterion has learned"),
    ],
)
def test_a_bad_policy_file_is_refused(llama, tmp_path, spoil, said):
    file = tmp_path / "policy"
    kept(llama, recipe(policy=str(file)))
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(InputError, match=said):
        kept(llama, recipe(policy=str(file)))
    with pytest.raises(InputError, match=r"there: No such file or directory; name another file"):
        kept(llama, recipe(policy=str(tmp_path / "no" / "policy")))


def test_what_is_learned_from_statistics_is_learned_anew_for_other_data(llama, monkeypatch):
    learned_on: list[torch.Tensor] = []

    @dataclass(frozen=True, kw_only=True)
    class ByNorm(Learner):
        """The norm of inputs, over that of all layers."""

        kept: Path | None = None
        file: ClassVar[str] = "kept"

        def learn(self, families):
            learned_on.append(sum(view.stats["input_norm"].sum() for family in families for view in family.views()))
            return {"total": learned_on[-1].clone()}

        def check(self, families, learned):
            assert learned["total"].dim() == 0

        def score(self, family, learned):
            (view,) = family.views()
            return view.stats["input_norm"] / learned["total"]

    monkeypatch.setattr(criteria, "_entries", dict(criteria._entries))
    criteria.add("by_norm", scope=Scope.LEARNED, on="in", needs=("input_norm",))(ByNorm)

    def asked(samples, more=""):
        return parse_recipe(
            f"calibrate: {{data: random, samples: {samples}, length: 12}}\n"
            f"steps:\n  - {{prune: channels, by: by_norm, remove: 25%{more}}}\n"
        )

    for samples in (4, 4, 3):
        recipe = asked(samples)
        context = Context(llama, llama, Original(llama.graph), recipe, "cpu")
        families = families_of(llama.graph, recipe.steps[0])
        stats = context.collect(wants(llama, recipe.steps[0], families, decide=True))
        decide(context, recipe.steps[0], families, stats)
    assert len(learned_on) == 2 and learned_on[0] != learned_on[1]
    with pytest.raises(InputError, match="gathers block by block, and by_norm learns of all; take `dense`"):
        kept(llama, asked(4, ", propagate: pruned"))
