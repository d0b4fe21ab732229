"""Models that do without visual tokens give what the dense ones give where nobody looks at these tokens."""

from __future__ import annotations

import pytest
import torch
import transformers
import vlms
from pruned_tokens import gone, hiding, obeying

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
