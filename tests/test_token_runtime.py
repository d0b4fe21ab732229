"""Models that do without visual tokens give what the dense ones give where nobody looks at these tokens."""

from __future__ import annotations

import pytest
import torch
import transformers
import vlms
from pruned_tokens import gone, hiding, kept, obeying

from compress.runtime.tokens.turn import Turn

BEFORE = [{"select": "max_min", "keep": 0.4}]
INSIDE = [{"at": {"decoder": 2}, "per": "prompt", "keep": 0.4, "score": [{"attention": {"queries": "last"}}]}]
THRICE = [
    {"select": "max_min", "keep": 0.7},
    {"at": {"decoder": 2}, "per": "prompt", "keep": 0.5, "score": [{"attention": {"queries": "last"}}]},
    {"at": {"decoder": 3}, "keep": 0.25, "score": [{"attention": {"queries": "text"}}]},
]
FAMILIES = ("llava-clip", "llava-next", "qwen2.5-vl", "qwen3-vl", "internvl", "idefics3", "gemma3")


def same_as_hidden(model, stages, given, steps=4):
    """Logits of the tokens that are left, and of `steps` tokens that are written, are those of a dense model whose
    layers look at these only."""
    some = {"max_new_tokens": steps, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    with torch.no_grad():
        with obeying(model, *stages) as attached:
            output = model(**given)
            assert attached.counts["tokens"]["kept"] < attached.counts["tokens"]["tokens"]
            written = model.generate(**given, **some) if steps else None
        hidden = gone(output, given, 4)
        with hiding(model, hidden):
            dense = model(**given, use_cache=True)
            expected = model.generate(**given, **some) if steps else None
    left = ~hidden[-1] & given["attention_mask"].bool()
    torch.testing.assert_close(output.logits[left], dense.logits[left], rtol=1e-3, atol=2e-4)
    if steps:
        assert torch.equal(written.sequences, expected.sequences)
        torch.testing.assert_close(torch.stack(written.logits), torch.stack(expected.logits), rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_with_different_numbers_of_pictures(name, kind):
    model = vlms.vlm(name) if kind == "sdpa" else vlms.eager(name)
    same_as_hidden(model, THRICE, vlms.ragged(name))


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_on_the_right(name):
    same_as_hidden(vlms.vlm(name), THRICE, vlms.ragged(name, left=False), 0)


@pytest.mark.parametrize("stages", [BEFORE, INSIDE], ids=["before", "inside"])
@pytest.mark.parametrize("name", FAMILIES)
def test_several_pictures_and_padding_on_the_left(name, stages):
    same_as_hidden(vlms.vlm(name), stages, vlms.prompt(name, pictures=2, pad=3))


@pytest.mark.parametrize("name", ["llava-clip", "qwen2.5-vl", "idefics3"])
def test_a_prompt_without_pictures_beside_one_with(name):
    same_as_hidden(vlms.vlm(name), THRICE, vlms.ragged(name, first=0))


@pytest.mark.parametrize("stages", [BEFORE, INSIDE], ids=["before", "inside"])
def test_one_prompt_without_padding(stages):
    same_as_hidden(vlms.vlm("llava-clip"), stages, vlms.prompt("llava-clip", rows=1))


def test_a_text_model_whose_layers_all_look_a_few_tokens_back():
    torch.manual_seed(0)
    text = transformers.MistralConfig(**vlms.TEXT, sliding_window=9)
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**vlms.TOWER), text_config=text, image_token_index=vlms.IMAGE
    )
    model = vlms.lively(transformers.LlavaForConditionalGeneration(config))
    given = vlms.ragged("llava-clip")
    same_as_hidden(model, BEFORE, given)
    same_as_hidden(model, THRICE, given)


def entering(model, given, *stages):
    """The states that the decoder's first layer is given, and how many tokens each slot stands for."""
    found, turns = [], []
    hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda layer, args: found.append(args[0][0]))
    arrange = Turn.arrange
    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), obeying(model, *stages):
        patch.setattr(Turn, "arrange", lambda self, *seen: (turns.append(self), arrange(self, *seen))[1])
        output = model(**given)
    hook.remove()
    return output, found[0], turns[0]


def test_tokens_that_merge_count_as_many_as_they_stand_for():
    model, given = vlms.vlm("llava-clip"), vlms.prompt("llava-clip", rows=1)
    _, dense, _ = entering(model, given, {"keep": 1.0, "select": "bipartite", "residual": "nearest_by_size"})
    halves = [{"keep": keep, "select": "bipartite", "residual": "nearest_by_size"} for keep in (0.5, 0.3)]
    output, merged, turn = entering(model, given, *halves)
    sizes = turn.sizes[0, kept(output, 0)]
    assert int(sizes.sum()) == given["input_ids"].shape[1] and len(sizes) == len(merged) < len(dense)
    torch.testing.assert_close(sizes @ merged, dense.sum(0), rtol=1e-4, atol=1e-4)


def test_scores_are_carried_from_pictures_to_the_prompt():
    model, given = vlms.vlm("llava-clip"), vlms.prompt("llava-clip", rows=1, pictures=2, seed=3)
    _, dense, _ = entering(model, given, {"keep": 1.0, "select": "max_min"})
    first = {"keep": 0.5, "score": ["hidden_norm"]}
    then = {"at": {"decoder": 2}, "per": "prompt", "keep": 0.25, "score": ["carried"]}
    picture = (given["input_ids"][0] == vlms.IMAGE).nonzero()[:, 0]
    norm = dense[picture].norm(dim=1).view(2, -1)
    stay = torch.zeros_like(norm).scatter(1, norm.topk(18, dim=1).indices, 1.0).bool().flatten()
    last = (norm.flatten() * stay).topk(18).indices
    momentum = {**then, "score": ["random"], "momentum": 0.999}
    for stage in (then, momentum):
        output, _, _ = entering(model, given, first, stage)
        assert set(kept(output, 0)) & set(picture.tolist()) == set(picture[stay].tolist())
        assert set(kept(output, 3)) & set(picture.tolist()) == set(picture[last].tolist())
    assert len(set((last // 36).tolist())) == 2 and int((last < 36).sum()) != 9
