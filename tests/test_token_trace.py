"""What went where: traces of calls, on tiny models of several families."""

from __future__ import annotations

from contextlib import contextmanager

import pruned_tokens
import pytest
import torch
import vlms

from compress.errors import ModelError
from compress.runtime import traced

LAST = {"attention": {"queries": "last"}}
TOWER = {"attention": {"queries": "all"}}


@contextmanager
def obeying(name, *stages):
    """The tiny model with a rule of these stages, and the traces of its calls."""
    model = vlms.vlm(name)
    with pruned_tokens.obeying(model, *stages) as attached, traced(model) as traces, torch.inference_mode():
        yield model, traces, attached.counts["tokens"]


@pytest.mark.parametrize("name", ["llava-clip", "llava-next", "qwen2.5-vl", "idefics3"])
def test_a_trace_says_who_stayed_after_every_stage(name):
    stages = {"keep": 0.5, "score": TOWER}, {"at": {"decoder": 2}, "keep": 0.25, "score": LAST}
    with obeying(name, *stages) as (model, traces, counts):
        model(**vlms.prompt(name, pad=2))
    (trace,) = traces
    assert [(after.stage, after.layer) for after in trace.stages] == [(0, 0), (1, 2)]
    left = [int((after.stays & trace.visual).sum()) for after in trace.stages]
    assert left[-1] == counts["kept"] < left[0] < counts["tokens"] == int(trace.visual.sum())
    for after, before in zip(trace.stages[1:], trace.stages, strict=False):
        assert bool(before.stays[after.stays].all())
    lengths = trace.lengths(4)
    assert lengths[0].equal(lengths[1]) and lengths[2].equal(lengths[3])
    text = int((trace.valid & ~trace.visual).sum())
    assert [int(lengths[layer].sum()) - text for layer in (0, 2)] == left
    assert all(int((after.of(group) == group.columns).sum()) > 0 for after in trace.stages for group in trace.groups)


def test_merged_tokens_are_followed_to_where_they_went_in_the_end():
    merging = {"keep": 0.5, "score": TOWER, "residual": {"nearest": {}}}
    with obeying("llava-clip", merging, {"at": {"decoder": 2}, "keep": 0.1, "score": LAST}) as (model, traces, _):
        model(**vlms.prompt("llava-clip", rows=1))
    first, second = traces[0].stages
    (group,) = traces[0].groups
    into = first.of(group)
    assert (into >= 0).all() and len(into.unique()) == 18  # nothing is gone, 18 hold all 36
    later = second.of(group)
    stays = second.stays[0][group.columns]
    assert later.equal(torch.where(second.stays[0][into], into, -1))  # dropped with what they were merged into
    assert later[stays].equal(group.columns[stays]) and int(stays.sum()) == 4


def test_restored_tokens_stay_again():
    stages = {"at": {"decoder": 1}, "keep": 0.25, "score": LAST}, {"at": {"decoder": 3}, "select": "restore"}
    with obeying("llava-clip", *stages) as (model, traces, _):
        model(**vlms.prompt("llava-clip"))
    assert not traces[0].stages[0].stays.all() and traces[0].stages[1].stays.all()
    assert traces[0].lengths(4)[:, 0].tolist() == [45, 18, 18, 45]


@pytest.mark.parametrize("name", ["llava-clip", "idefics3", "qwen2.5-vl"])
def test_the_picture_of_a_grid_is_that_which_the_model_was_given(name):
    given = vlms.prompt(name, rows=1)
    with obeying(name, {"keep": 0.5, "score": TOWER}) as (model, traces, _):
        model(**given)
    picture = traces[0].picture(traces[0].groups[0])
    if name == "qwen2.5-vl":  # patches in the order of its processor: 2 × 2 of them make a token
        patches = given["pixel_values"].view(3, 4, 2, 2, 3, 4, 4)  # rows, columns of tokens; of patches; pixels
        pixels = patches.permute(0, 2, 5, 1, 3, 6, 4).reshape(24, 32, 3)
    else:
        pixels = given["pixel_values"].view(3, 24, 24).permute(1, 2, 0)
    low, high = pixels.amin((0, 1)), pixels.amax((0, 1))
    torch.testing.assert_close(picture, (pixels - low) / (high - low))


def test_nothing_is_recorded_unasked_or_without_pictures():
    with obeying("llava-clip", {"keep": 0.5, "score": TOWER}) as (model, traces, _):
        model(input_ids=torch.tensor([[1, 2, 3]]))
    assert traces == []
    with pytest.raises(ModelError, match="has no pictures"), traced(torch.nn.Linear(1, 1)):
        pass
