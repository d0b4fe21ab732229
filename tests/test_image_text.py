"""Models of images and text: traced through both towers, calibrated on captions, pruned in both, opened by stock."""

from __future__ import annotations

import copy
import json
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import several
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from compress import cli
from compress.data.captions import captioned
from compress.data.images import Preparation
from compress.data.sources.captions import TEXTS, captions
from compress.data.sources.photos import CALIBRATE, KEPT_BACK
from compress.errors import InputError
from compress.graph.axes import Node, find
from compress.graph.record import Recorder
from compress.graph.values import Unread
from compress.inputs.batch import LABELS, given
from compress.inputs.image_text import ImageText
from compress.model.model import Model
from compress.pipeline import Options, run
from compress.recipe.part import Part
from compress.recipe.read import parse_recipe
from compress.recipe.schema import Calibrate
from compress.tasks.choose import task_of

QUICK = Options(evaluate=False)
STAND = {"llava": 4, "paligemma": 4, "idefics3": 1, "qwen2_vl": 4, "clip": 0, "siglip": 0}
VISION = {"llava": "vision_tower", "paligemma": "vision_tower", "idefics3": "vision_model", "qwen2_vl": "visual"}
FLAT = Preparation((16, 16), (0.0,) * 3, (1.0,) * 3)


def few(names, quick=("llava", "clip")):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", few(STAND, quick=("llava", "qwen2_vl")))
def test_both_towers_are_traced_and_what_stands_for_an_image_is_asked_of_the_model(name, tmp_path):
    source = Model.of(several.save(name, tmp_path))
    assert isinstance(source.inputs, ImageText)
    assert source.graph.untraced == {} and source.inputs.warning(source.checkpoint) is None
    free = [family for family in source.graph.families.values() if family.pinned is None]
    seen = VISION.get(name, "vision_model")
    for kind, size in (("heads", 4), ("channels", 64 if name == "qwen2_vl" else 48)):
        assert sum(f.kind == kind and seen in f.name and f.size == size for f in free) >= 2, kind
        assert sum(f.kind == kind and seen not in f.name for f in free) >= 2, kind
    batch, token = source.inputs.check(), several.IMAGE
    if STAND[name]:
        assert ((batch["input_ids"] == token).sum(1) == STAND[name]).all()
    with torch.no_grad():
        several.stock(source.checkpoint)(**given(batch))  # it counts them, too


def test_text_alone_would_not_have_run_the_tower_and_a_model_that_takes_no_image_says_so(tmp_path, monkeypatch):
    checkpoint = several.save("llava", tmp_path)
    monkeypatch.setattr(ImageText, "layouts", lambda self, small: iter(()))
    monkeypatch.setattr("compress.inputs.accompanied._asked", {})
    source = Model.of(checkpoint)
    assert set(source.graph.untraced.values()) == {"model.vision_tower", "model.multi_modal_projector"}
    assert "no way was found to give LlavaForConditionalGeneration pixel_values" in str(
        source.inputs.warning(checkpoint)
    )
    assert source.inputs.data == Part("docs")


@settings(max_examples=4)
@drawn(seed=st.integers(0, 2**16))
def test_channels_of_both_towers_and_heads_of_the_text_are_coupled(seed):
    """A smaller stock LLaVA with the slices that stay computes what the whole one does with the others' zeroed."""
    source, dense = built()
    random, state, kept = np.random.default_rng(seed), dense.state_dict(), {}
    config = copy.deepcopy(dense.config)
    config.vision_config.intermediate_size, config.text_config.intermediate_size = 20, 40
    config.text_config.num_key_value_heads, config.text_config.num_attention_heads = 1, 2
    for family in source.graph.families.values():
        stays = {48: 20, 64: 40, 2: 1}.get(family.size, 0)
        if family.layer is not None and (family.kind == "channels" or (family.kind, family.size) == ("heads", 2)):
            kept[family.name] = np.isin(np.arange(family.size), random.permutation(family.size)[:stays])
    assert len(kept) == 2 + 4
    small = type(dense)(config).eval()
    for name, tensor in state.items():
        for dim, mask in source.graph.masks(name, kept).items():
            tensor = tensor.index_select(dim, torch.from_numpy(np.flatnonzero(mask)))
        small.get_parameter(name).data = tensor if name in dict(small.named_parameters()) else small.get_parameter(name)
    masked = copy.deepcopy(dense)
    for name, mask in kept.items():
        block, gone = masked.get_submodule(name.rpartition(".")[0]), torch.from_numpy(np.flatnonzero(~mask))
        if name.endswith("heads"):  # a key/value head of twelve channels, read by two query heads
            places = (gone[:, None] * 24 + torch.arange(24)).flatten()
            block.o_proj.weight.data[:, places] = 0
        else:
            (block.fc2 if hasattr(block, "fc2") else block.down_proj).weight.data[:, gone] = 0
    batch = source.inputs.check(3, seed)
    with torch.no_grad():
        whole, expected, found = (model(**batch).logits for model in (dense, masked, small))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (whole - expected).abs().max() > 1e-3


@cache
def built():
    """The LLaVA and its graph."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = several.save("llava", Path(folder))
        return Model.of(checkpoint), several.stock(checkpoint)


@pytest.mark.slow
def test_heads_and_channels_of_both_towers_go_through_the_pipeline(tmp_path, name="llava"):
    several.save(name, tmp_path / "in")
    how = "by: fluctuation, remove: 20%, allocate: standardized, repair: bias, widths: per-layer"
    recipe = parse_recipe(
        "calibrate: {data: random, samples: 4, batch: 2, length: 12}\n"
        f"steps:\n- {{prune: [heads, channels], {how}}}\n"
    )
    report = run(recipe, tmp_path / "in", tmp_path / "out", QUICK)
    assert any("equal to the masked dense model's" in note for note in report["notes"])
    kept = json.loads((tmp_path / "out" / "plan.json").read_text())["steps"][0]["decision"]["kept"]
    seen = VISION.get(name, "vision_model")
    assert {seen in family for family in kept} == {True, False}


@pytest.fixture
def llava(tmp_path):
    return Model.of(several.save("llava", tmp_path / "llava", tokenizer=True))


def test_the_loss_is_that_of_the_text_alone(llava):
    (batch,), _ = llava.inputs.batches(Calibrate(samples=3, length=24), llava.checkpoint)
    ids, labels = batch["input_ids"], batch[LABELS]
    standing = ids == several.IMAGE
    assert (standing.sum(1) == STAND["llava"]).all() and (labels[standing] == -100).all()
    assert torch.equal(labels[~standing], ids[~standing]) and ids.shape == (3, 4 + 24)
    model = several.stock(llava.checkpoint)
    with torch.no_grad():
        output = model(**given(batch))
        found = task_of(model).loss(output, batch)
        assert found == pytest.approx(model(**given(batch), labels=labels).loss.item(), rel=1e-6)
        flat, after = output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    each = functional.cross_entropy(flat, after.clamp(min=0), reduction="none")[after >= 0]
    assert each.numel() == 3 * 24 and float(found) == pytest.approx(float(each.mean()), rel=1e-5)


def test_an_image_is_calibrated_on_with_its_own_caption(llava):
    assert set(TEXTS) == {*CALIBRATE, *KEPT_BACK}
    pictures = dict(zip(CALIBRATE, captions(), strict=True))
    assert all(text == TEXTS[name] for name, (_, text) in pictures.items())
    images, texts = captioned(Part("captions"), 20, FLAT, seed=2)
    assert images.shape == (20, 3, 16, 16) and images.min() >= 0
    order = [next(name for name in CALIBRATE if text.endswith(TEXTS[name])) for text in texts]
    assert order == [CALIBRATE[(i + 2) % len(CALIBRATE)] for i in range(20)]
    keys = [llava.inputs.batches(Calibrate(samples=4, length=20), llava.checkpoint, seed)[1] for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]
    assert llava.inputs.data == Part("captions")
    assert llava.inputs.held_out([None]) == Part("captions", {"split": "test"})


def test_pairs_of_a_file_are_read_and_what_is_none_is_named(llava, tmp_path):
    Image.new("RGB", (20, 20), (255, 0, 0)).save(tmp_path / "red.png")
    file = tmp_path / "metadata.jsonl"
    long = "a red square and nothing else on it at all"
    file.write_text(json.dumps({"image": "red.png", "text": long}) + "\n")
    images, texts = captioned(str(tmp_path), 2, FLAT, seed=0)
    assert images.mean((0, 2, 3)).tolist() == pytest.approx([1, 0, 0]) and texts[1].endswith(long)
    file.write_text('{"image": "red.png"}\n')
    with pytest.raises(InputError, match=r"metadata\.jsonl:1: no image and text"):
        captioned(str(file), 2, FLAT, seed=0)
    file.write_text(json.dumps({"image": "red.png", "text": "red"}) + "\n")
    with pytest.raises(InputError, match="give 8 at least"):
        llava.inputs.text_rows(["red"], 20, llava.checkpoint)
    with pytest.raises(InputError, match="docs gives text, and the model reads images with text; take captions, pairs"):
        captioned(Part("docs"), 2, FLAT, seed=0)
    with pytest.raises(InputError, match=r"calibrate\.template: chat: the model reads images too"):
        llava.inputs.batches(Calibrate(samples=2, template="chat"), llava.checkpoint)


@pytest.mark.parametrize("name", ["clip", pytest.param("siglip", marks=pytest.mark.slow)])
def test_pairs_of_encoders_have_the_published_losses(name, tmp_path):
    source = Model.of(several.save(name, tmp_path))
    assert source.task.name == "contrastive"
    batch, model = source.inputs.check(5), several.stock(source.checkpoint)
    with torch.no_grad():
        output = model(**batch)
        expected = model(**batch, return_loss=True).loss
    assert float(source.task.loss(output, batch)) == pytest.approx(float(expected), rel=1e-5)
    turned = SimpleNamespace(image_embeds=output.image_embeds.flip(0), text_embeds=output.text_embeds)
    found = source.task.distance(output, turned)
    one = torch.nn.functional.normalize(output.image_embeds, dim=-1)
    torch.testing.assert_close(found[:, 0], (1 - (one * one.flip(0)).sum(1)).clamp(min=0))
    assert found[:, 1].max() < 1e-6
    metric = source.task.metric(batch)
    same = metric.quality(metric.read(output, batch), metric.read(output, batch))
    assert all(figure.value == pytest.approx(1) for figure in same.figures)


def test_values_of_inputs_are_known_where_weights_had_no_part():
    weight, ids = torch.empty(3, device="meta"), torch.tensor([[7, 1, 7], [2, 7, 7]])
    with torch.device("meta"), Unread() as mode:
        lent = mode.values.lend({"ids": ids})["ids"]
        count = int((lent == 7).sum())
        picked = torch.ones(2, 3, 4)[lent == 7]
        sizes = lent.sum(1).tolist()
        written = lent.clone()
        written[0] = weight.long()
    assert lent.is_meta and (count, picked.shape, sizes) == (4, (4, 4), [15, 16])
    assert mode.values.known(written) is None and mode.values.known(lent) is not None


@pytest.mark.parametrize("rows", [True, False])
def test_features_put_into_a_text_have_its_width_unless_the_mask_says_otherwise(rows):
    given_, source = torch.empty(2, 5, 8, device="meta"), torch.empty(3, 8, device="meta")
    mask = torch.empty(2, 5, 1 if rows else 8, dtype=torch.bool, device="meta")
    recorder = Recorder({}, {}, {"given": given_, "mask": mask, "source": source})
    with recorder:
        made = given_.masked_scatter(mask, source)
    own, other, out = (recorder.dims(tensor)[-1] for tensor in (given_, source, made))
    assert isinstance(own, Node) and find(own) is find(out)
    assert (find(own) is find(other)) == rows and (not find(own).pins) == rows


@pytest.mark.slow
def test_a_recipe_that_ships_prunes_weights_of_both_towers_by_the_loss_of_image_and_text(tmp_path):
    several.save("llava", tmp_path / "in", tokenizer=True)
    few = ["--set", "calibrate.samples=6", "--set", "calibrate.length=24", "--evaluate", "full"]
    assert cli.call(["ecoflap-50", str(tmp_path / "in"), str(tmp_path / "out"), *few]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (figure,) = (one for one in report["quality"]["figures"] if one["name"] == "perplexity")
    assert figure["value"] != figure["dense"]
    dense, small = (several.stock(several.open_checkpoint(tmp_path / side)) for side in ("in", "out"))
    for name, weight in small.named_parameters():
        if name.endswith(("fc1.weight", "down_proj.weight", "q_proj.weight")):
            assert 0 < (weight == 0).float().mean() < 1 and not torch.equal(weight, dense.get_parameter(name)), name
