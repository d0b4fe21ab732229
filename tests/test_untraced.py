"""What the trace did not run: it is pinned with all that may span it, and what is free beside it is cut correctly."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import compress
from compress.data.vocabulary import text_config
from compress.errors import BudgetError, ModelError, VerifyError
from compress.execution.document import read_plan
from compress.graph.families import Family, Graph
from compress.graph.trace import trace
from compress.inputs import accompanied
from compress.inputs.choose import inputs_of
from compress.inputs.image_text import ImageText
from compress.model.build import empty_model
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe
from compress.steps.units.masks import masks

TEXT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
IMAGE, PATCHES = 95, 4  # the token that stands for a patch, and the patches of an image
CLIP = {**TOWER, "image_size": 8, "patch_size": 4}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
NOT_RUN = "the trace did not run "
INTERNAL = {"heads", "queries", "head_dim", "channels"}


@pytest.fixture(autouse=True)
def text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageText, "layouts", lambda self, small: iter(()))  # no way is found to give an image
    monkeypatch.setattr(accompanied, "_asked", {})


def llava() -> tf.LlavaConfig:
    return tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**CLIP), text_config=tf.LlamaConfig(**TEXT), image_token_index=IMAGE
    )


def llava_next() -> tf.LlavaNextConfig:
    return tf.LlavaNextConfig(
        vision_config=tf.CLIPVisionConfig(**CLIP), text_config=tf.LlamaConfig(**TEXT), image_token_index=IMAGE
    )


def gemma3() -> tf.Gemma3Config:
    return tf.Gemma3Config(
        vision_config=tf.SiglipVisionConfig(**CLIP), text_config=tf.Gemma3TextConfig(**TEXT), mm_tokens_per_image=4
    )


def qwen2_vl() -> tf.Qwen2VLConfig:
    tower = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 4}
    return tf.Qwen2VLConfig(vision_config=tower, text_config={**TEXT, "rope_parameters": MROPE})


def qwen3_vl() -> tf.Qwen3VLConfig:
    """What a block of the tower computes is added to the first block of the text."""
    tower = {"depth": 2, "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 24, "num_heads": 2}
    tower |= {"patch_size": 4, "deepstack_visual_indexes": [0]}
    return tf.Qwen3VLConfig(vision_config=tower, text_config={**TEXT, "rope_parameters": MROPE})


def mllama() -> tf.MllamaConfig:
    """A block of three attends to images alone: tokens skip it."""
    tower = {**TOWER, "num_global_layers": 1, "attention_heads": 2, "image_size": 8, "patch_size": 4}
    text = {**TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1]}
    return tf.MllamaConfig(
        vision_config={**tower, "vision_output_dim": 32, "intermediate_layers_indices": [0]}, text_config=text
    )


CONFIGS: dict[str, tuple[Any, str]] = {
    "llava": (llava, "LlavaForConditionalGeneration"),
    "llava_next": (llava_next, "LlavaNextForConditionalGeneration"),
    "gemma3": (gemma3, "Gemma3ForConditionalGeneration"),
    "qwen2_vl": (qwen2_vl, "Qwen2VLForConditionalGeneration"),
    "qwen3_vl": (qwen3_vl, "Qwen3VLForConditionalGeneration"),
    "mllama": (mllama, "MllamaForConditionalGeneration"),
}


def traced(model: nn.Module) -> Graph:
    return trace(model, inputs_of(model).example())


@cache
def graph(name: str) -> Graph:
    config, cls = CONFIGS[name]
    return traced(empty_model(config(), getattr(tf, cls)))


def of(found: Graph, *kinds: str) -> list[Family]:
    return [family for family in found.families.values() if family.kind in kinds]


@pytest.mark.parametrize("name", CONFIGS)
def test_no_free_family_spans_what_did_not_run(name):
    found = graph(name)
    assert found.untraced
    for family in of(found, "hidden", "vocab"):
        assert family.pinned and "which the trace did not run" in family.pinned
    for family in found.families.values():
        missed = [member.tensor for member in family.members if member.tensor in found.untraced]
        assert not missed or (family.pinned or "").startswith(NOT_RUN), family
    free = [family for family in found.families.values() if family.pinned is None]
    assert {"heads", "channels"} <= {family.kind for family in free} <= INTERNAL | {"layers"}
    assert all(family.layer is not None for family in free if family.kind != "layers")


def test_the_reason_names_the_modules():
    (hidden,) = of(graph("llava"), "hidden")
    assert hidden.pinned == (
        "it may span model.vision_tower and model.multi_modal_projector, which the trace did not run"
    )
    projector = graph("llava").layouts["model.multi_modal_projector.linear_2.weight"][0]
    assert graph("llava").families[projector.family].pinned == NOT_RUN + "model.multi_modal_projector"  # pyright: ignore
    (wider,) = of(graph("llava_next"), "hidden")
    assert "model.image_newline and 2 more modules" in (wider.pinned or "")  # a tensor of a module that ran


def test_layers_are_free_where_all_of_a_list_ran():
    assert all(family.pinned is None for name in ("llava", "gemma3") for family in of(graph(name), "layers"))
    (layers,) = of(graph("mllama"), "layers")
    assert layers.pinned == NOT_RUN + "model.language_model.layers.1"


def test_layers_that_are_given_what_did_not_run_stay():
    (layers,) = of(graph("qwen3_vl"), "layers")
    assert layers.pinned == "it may span model.visual, which the trace did not run"


class Block(nn.Module):
    def __init__(self, unused: nn.Module | None) -> None:
        super().__init__()
        self.up, self.down, self.unused = nn.Linear(8, 20), nn.Linear(20, 8), unused

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Toy(nn.Module):
    """Two blocks, and what its forward does not use."""

    def __init__(self, unused: nn.Module | None = None, inside: nn.Module | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(24, 8)
        self.layers = nn.ModuleList([Block(None), Block(inside)])
        self.last, self.head = nn.Linear(8, 8), nn.Linear(8, 24)
        self.unused = unused

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return {"logits": self.head(torch.relu(self.last(x)))}


def toy(**unused: nn.Module) -> Graph:
    return traced(Toy(**unused).eval().to("meta"))


def free(found: Graph) -> set[str]:
    return {family.name for family in found.families.values() if family.pinned is None}


def test_an_unused_projector_pins_what_is_not_inside_of_a_block():
    inside = {"layers.0.channels", "layers.1.channels", "layers.layers"}
    assert free(toy()) == inside | {"hidden", "vocab", "channels"}
    assert free(toy(unused=nn.Linear(6, 8))) == inside
    assert free(toy(unused=nn.Linear(7, 16))) == inside  # a projector may merge neighbours into one


def test_an_unused_part_of_a_block_pins_that_block():
    assert free(toy(inside=nn.Linear(20, 6))) == {"layers.0.channels"}


def test_a_number_that_is_not_read_pins_nothing():
    scale = nn.Module()
    scale.register_parameter("scale", nn.Parameter(torch.ones(1)))
    assert free(toy(unused=scale)) == free(toy()) and set(toy(unused=scale).untraced) == {"unused.scale"}


def test_what_reads_the_maps_of_all_heads_pins_them():
    config = tf.EsmConfig(**{**TEXT, "max_position_embeddings": 64, "pad_token_id": 1, "mask_token_id": 2})
    found = traced(empty_model(config, tf.EsmForMaskedLM))
    assert all("esm.contact_head" in (family.pinned or "") for family in of(found, "heads", "layers", "hidden"))
    assert all(family.pinned is None for family in of(found, "channels") if family.layer is not None)


def test_a_model_that_wants_more_than_it_is_given_is_an_error_in_words():
    text = {key: value for key, value in TEXT.items() if key not in ("num_key_value_heads", "head_dim")}
    config = tf.CLIPConfig(text_config=text, vision_config=CLIP)
    with pytest.raises(ModelError, match=r"CLIPModel cannot be recorded.*given input_ids alone"):
        traced(empty_model(config, tf.CLIPModel))


def test_a_model_without_tokens_has_nothing_to_tie():
    config = tf.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    assert traced(empty_model(config, tf.ResNetModel)).layouts
    with pytest.raises(ModelError, match="ResNetConfig has no vocabulary"):
        text_config(config)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    model = tf.LlavaForConditionalGeneration(llava()).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "in")
    return tmp_path / "in"


def recipe(step: str) -> Any:
    return parse_recipe(f"calibrate: {{data: random, samples: 4, length: 16}}\nsteps:\n- {step}\n")


HALF = recipe("{prune: [heads, channels], by: activation, remove: 50%}")
QUICK = Options(evaluate=False)


def answer(model: nn.Module) -> Tensor:
    """Logits for two images, each with text around it."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, IMAGE, (2, 12), generator=generator)
    ids[:, 3 : 3 + PATCHES] = IMAGE
    pixels = torch.randn(2, 3, 8, 8, generator=generator)
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels).logits


@pytest.mark.slow
def test_text_pruned_beside_a_vision_tower_sees_images_as_the_masked_model_does(saved):
    out = saved.parent / "out"
    report = run(HALF, saved, out)
    assert report["after"]["params"] < report["before"]["params"]
    model, info = tf.LlavaForConditionalGeneration.from_pretrained(out, output_loading_info=True)
    assert not any(info.values()), info
    (step,) = read_plan(out / "plan.json").steps
    found, dense = graph("llava"), tf.LlavaForConditionalGeneration.from_pretrained(saved).eval()
    whole, kept = answer(dense), masks(found, step.decision["kept"])
    state = dense.state_dict()
    for tensor in found.layouts:
        for dim, mask in found.masks(tensor, kept).items():
            state[tensor].index_fill_(dim, torch.from_numpy(~mask).nonzero().flatten(), 0)
    assert torch.allclose(answer(model.eval()), answer(dense), atol=1e-4)
    assert not torch.allclose(answer(dense), whole, atol=1e-2)
    note = "model.vision_tower and model.multi_modal_projector, which the forward does not run, bit for bit the input's"
    assert any(text.startswith("verified: shapes, and output equal") and note in text for text in step.notes)


def test_a_changed_tower_is_found_however_large_it_is(saved, monkeypatch):
    from compress.stream.stream import Stream
    from compress.surgery import rewrite as writing
    from compress.surgery.verify import forward

    def wrong(source, edit, folder):
        rewrite(source, edit, folder)
        tensors = load_file(folder / "model.safetensors")
        name = next(name for name in tensors if "multi_modal_projector.linear_1.weight" in name)
        tensors[name][0, 0] += 1
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    rewrite = writing.rewrite
    monkeypatch.setattr(writing, "rewrite", wrong)
    monkeypatch.setattr(forward, "Stream", partial(Stream, large=0))  # such modules are not read before they run
    with pytest.raises(VerifyError, match=r"linear_1\.weight, which no forward runs"):
        run(HALF, saved, saved.parent / "out", QUICK)


def test_the_width_of_the_text_is_refused_with_the_reason(saved):
    with pytest.raises(BudgetError, match=r"hidden cannot be pruned: it may span model\.vision_tower"):
        run(recipe("{prune: hidden, by: random, remove: 25%}"), saved, saved.parent / "out", QUICK)


def test_inspect_says_why(saved):
    (hidden,) = (family for family in compress.inspect(saved).families if family.kind == "hidden")
    assert "model.multi_modal_projector, which the trace did not run" in (hidden.pinned or "")
