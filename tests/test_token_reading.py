"""What the runtime reads of a model: attention as eager computes it, and of which patches each token is made."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
import vlms
from pruned_tokens import obeying

from compress.recipe.token_stage import Term
from compress.runtime.tokens import prefill
from compress.runtime.tokens.find import places_of

NAMES = ("llava-clip", "llava-dinov2", "llava-next", "llava-onevision", "qwen2-vl", "qwen2.5-vl", "qwen3-vl")
NAMES += ("internvl", "idefics3", "gemma3")


def term(name, **arguments):
    return Term.model_validate({name: arguments})


def read(monkeypatch, model, given, stage, *asked):
    """What a stage is handed of each group: `(need, term)`."""
    found, decided = [], prefill.decided

    def told(stage, reading, came):
        found.append([reading(need, one) for need, one in asked])
        return decided(stage, reading, came)

    with monkeypatch.context() as patch, torch.no_grad(), obeying(model, stage):
        patch.setattr(prefill, "decided", told)
        model(**given)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_towers_attention_is_that_of_eager(name, monkeypatch):
    queries = ["all", "cls"] if name in vlms.CLS else ["all"]
    terms = [term("attention", queries=one, layers=[0, -1]) for one in queries]
    asked = [("attention", one) for one in terms]
    asked += [("attention", term("global_attention", layers=[1])), ("logits", term("pagerank", layers=[-1]))]
    asked += [("key", terms[0]), ("value", terms[0])]
    scores = [one.written() for _, one in asked[:-2]]
    stage, given = {"keep": 0.5, "score": scores}, vlms.prompt(name, pictures=2)
    lazy = read(monkeypatch, vlms.vlm(name), given, stage, *asked)
    eager = read(monkeypatch, vlms.eager(name), given, stage, *asked)
    assert len(lazy) == len(eager) >= 4
    for one, other in zip(lazy, eager, strict=True):
        for have, expected in zip(one, other, strict=True):
            torch.testing.assert_close(have, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llava-clip", "llava-dinov2", "internvl", "gemma3"])
def test_a_token_gets_what_its_patches_get(name, monkeypatch):
    model, given = vlms.vlm(name), vlms.prompt(name, pictures=2)
    terms = [term("attention", queries="all", layers=[0, -1]), term("global_attention", layers=[1])]
    stage = {"keep": 0.5, "score": [one.written() for one in terms]}
    found = read(monkeypatch, model, given, stage, *[("attention", one) for one in terms])
    groups = grids_of(model, given, monkeypatch).groups
    with torch.no_grad():
        tower = places_of(vlms.eager(name)).tower
        layers = tower(given["pixel_values"], output_attentions=True).attentions
    for group, (every, square) in zip(groups, found, strict=True):
        each = layers[0].shape[-1] - group.prefix
        picture, patch = int(group.units[0, 0]) // each, group.units % each + group.prefix
        for number, layer in enumerate((layers[0], layers[-1])):
            received = layer[picture].mean(1)[:, patch].mean(2)
            torch.testing.assert_close(every[number, :, 0], received, rtol=1e-4, atol=1e-6)
        between = layers[1][picture][:, patch][..., patch].mean((2, 4))
        torch.testing.assert_close(square[0], between, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["llava-clip", "qwen2.5-vl", "gemma3"])
def test_a_decoders_attention_is_that_of_eager(name, monkeypatch):
    terms = [term("attention", queries=one, layers=[0, 1]) for one in ("last", "text", "all")]
    terms += [term("attention", queries="last", window=3, layers=[-1])]
    asked = [("attention", one) for one in terms] + [("logits", term("pagerank")), ("key", None)]
    stage = {"at": {"decoder": 2}, "per": "prompt", "keep": 0.5, "score": [one.written() for one in terms]}
    stage["score"].append({"pagerank": {}})
    given = vlms.ragged(name)
    lazy = read(monkeypatch, vlms.vlm(name), given, stage, *asked)
    eager = read(monkeypatch, vlms.eager(name), given, stage, *asked)
    for row, (one, other) in enumerate(zip(lazy, eager, strict=True)):
        for have, expected in zip(one, other, strict=True):
            torch.testing.assert_close(have, expected, rtol=1e-5, atol=1e-5)
        dense = vlms.eager(name)(**given, output_attentions=True).attentions
        columns = (given["input_ids"][row] == vlms.IMAGE).nonzero()[:, 0]
        torch.testing.assert_close(one[0][:, :, 0], torch.stack([dense[i][row, :, -1, columns] for i in (0, 1)]))
        torch.testing.assert_close(one[1], torch.stack([dense[i][row, :, -6:][..., columns] for i in (0, 1)]))


def asked_about(name):
    """A family and a prompt with two pictures; `wide` is one whose windows are not their own inverse."""
    if name != "wide":
        return name, vlms.prompt(name, pictures=2, rows=1)
    ids = torch.tensor([[1, *[vlms.IMAGE] * 12, 2, *[vlms.IMAGE] * 24, 3]])
    sizes = torch.tensor([[1, 6, 8], [1, 8, 12]])
    pixels = torch.randn(48 + 96, 48, generator=torch.Generator().manual_seed(0))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == vlms.IMAGE).int()}
    return "qwen2.5-vl", {**given, "pixel_values": pixels, "image_grid_thw": sizes}


def features(core, given):
    """What a model makes of its pictures, `[tokens, size]`."""
    names = [name for name in ("pixel_values", "image_sizes", "image_grid_thw") if name in given]
    with torch.no_grad():
        return torch.cat(list(core.get_image_features(**{name: given[name] for name in names}).pooler_output))


def grids_of(model, given, monkeypatch):
    """The groups of one forward."""
    found = []
    arrange = prefill.Turn.arrange

    def told(self, seen, grids):
        arrange(self, seen, grids)
        found.append(self)

    with monkeypatch.context() as patch, torch.no_grad(), obeying(model, {"keep": 0.5, "select": "uniform"}):
        patch.setattr(prefill.Turn, "arrange", told)
        model(**given)
    return found[0]


@contextmanager
def shifted(name, core, patch, prefix):
    """Other features of one patch of the tower's, counted through all tiles."""

    def other(states, first):
        states = states.clone()
        if states.dim() == 2:
            states[patch, ::2] += 3
        else:
            tile, place = divmod(patch, states.shape[1] - first)
            states[tile, first + place, ::2] += 3
        return states

    def before(module, args):
        return (other(args[0], 0), *args[1:])

    def after(module, args, output):
        output.last_hidden_state = other(output.last_hidden_state, prefix)
        return output

    if name.startswith("llava"):
        undo = core.multi_modal_projector.register_forward_pre_hook(before)
    elif name in vlms.GRIDS:
        undo = core.visual.merger.register_forward_pre_hook(before)
    else:
        undo = places_of(core).tower.register_forward_hook(after)
    try:
        yield
    finally:
        undo.remove()


@pytest.mark.parametrize("name", [*NAMES, "wide"])
def test_another_patch_makes_another_token(name, monkeypatch):
    name, given = asked_about(name)
    model = vlms.vlm(name)
    core = model.model
    turn = grids_of(model, given, monkeypatch)
    made = torch.full((int(turn.visual.sum()), 4), -1)  # token → its patches
    place = turn.visual[0].cumsum(0) - 1
    for group in turn.groups:
        made[place[group.columns], : group.units.shape[1]] = group.units
    dense, count = features(core, given), int(made.max()) + 1
    for patch in range(1, count, max(1, count // 12)):
        with shifted(name, core, patch, turn.groups[0].prefix):
            moved = (features(core, given) - dense).abs().amax(1) > 1e-6
        assert moved.nonzero()[:, 0].tolist() == (made == patch).any(1).nonzero()[:, 0].tolist() != []


@pytest.mark.parametrize("name", [*NAMES, "wide"])
def test_pixels_are_those_of_the_token(name, monkeypatch):
    name, given = asked_about(name)
    model, asked = vlms.vlm(name), ("pixels", None)
    dense = read(monkeypatch, model, given, {"keep": 0.5, "score": ["entropy"]}, asked)
    turn = grids_of(model, given, monkeypatch)
    for number in (0, 3, 5):
        group = turn.groups[-1]
        pixels = given["pixel_values"].clone()
        if name in vlms.GRIDS:
            place = turn.visual[0].cumsum(0)[group.columns[number]] - 1  # the processor has a token's patches together
            pixels[int(place) * 4 + 1] += 0.01
        else:
            patch = int(group.units[number, 0])
            tile, patch = divmod(patch, 36)
            row, column = (4 * place for place in divmod(patch, 6))
            pixels.flatten(0, -4)[tile, :, row : row + 4, column : column + 4] += 0.01
        other = read(monkeypatch, model, {**given, "pixel_values": pixels}, {"keep": 0.5, "score": ["entropy"]}, asked)
        moved = [(one[0] - two[0]).abs().amax(1) > 1e-4 for one, two in zip(dense, other, strict=True)]
        assert [one.nonzero()[:, 0].tolist() for one in moved] == [[]] * (len(moved) - 1) + [[number]]
