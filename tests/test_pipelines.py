"""Pipelines of diffusers, component by component: what opens, what stays, and where a cliff is."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import compress
from compress import cli
from compress.components.cliff import walk
from compress.components.examples import example_of
from compress.errors import InputError

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

UNET = {
    "block_out_channels": (16,), "layers_per_block": 1, "sample_size": 8, "norm_num_groups": 4,
    "cross_attention_dim": 32, "attention_head_dim": 8, "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
}  # fmt: skip
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 90,
        "max_position_embeddings": 16}  # fmt: skip


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A tiny Stable Diffusion. Of the text encoder's matrices the smallest 30 % do next to nothing, and the next ones
    all that matters: a cliff."""
    torch.manual_seed(0)
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT))
    for name, weight in text.named_parameters():
        if weight.dim() == 2 and "embed" not in name:
            flat = weight.detach().abs().flatten()
            rank = flat.argsort().argsort().view_as(weight) / len(flat)
            weight.data = weight.sign() * torch.where(rank < 0.3, 1e-4, 0.1 + 0.001 * rank)
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8)
    made = diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=None, unet=diffusers.UNet2DConditionModel(**UNET), scheduler=
        diffusers.DDIMScheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("pipeline") / "in"
    made.save_pretrained(folder)
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    return folder


def matrices(model):
    return {name: p for name, p in model.named_parameters() if p.dim() > 1 and "embed" not in name}


def test_each_component_goes_to_its_share_or_stops_before_its_cliff(dense, tmp_path, capsys):
    assert cli.call(["sd-47-35", str(dense), str(tmp_path / "out"), "--json"]) == 0
    rows = {row["component"]: row for row in json.loads(capsys.readouterr().out)}
    text, unet = rows["text_encoder"], rows["unet"]
    assert text["part"] == 0.6 and len(text["damage"]) == 7  # 28.5 % of 47.5 %, as 33 % would be beyond 30 %
    assert text["damage"][5] < 0.01 < 0.1 < text["damage"][6]
    assert unet["part"] == 1 and len(unet["damage"]) == 10
    made = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None, tokenizer=None)
    for name, share in (("text_encoder", 0.285), ("unet", 0.35)):
        before = getattr(diffusers if name == "unet" else transformers, type(getattr(made, name)).__name__)
        old, new = matrices(before.from_pretrained(dense / name)), matrices(getattr(made, name))
        inner = [key for key in old if "conv_in" not in key]
        assert all(torch.equal(old[key], new[key]) or (new[key] == 0).any() for key in old)
        cut = [key for key in inner if (new[key] == 0).any()]
        for key in cut:
            gone = new[key] == 0
            assert gone.float().mean() == pytest.approx(share, abs=0.03), key
            assert old[key][gone].abs().max() <= old[key][~gone].abs().min()
        assert len(cut) > 0.8 * len(inner)
    noise = example_of(made.unet, 1)
    assert made.unet(**noise).sample.isfinite().all()
    assert not list((tmp_path / "out").rglob("*.bin"))
    vaes = [diffusers.AutoencoderKL.from_pretrained(place / "vae") for place in (dense, tmp_path / "out")]
    for one, other in zip(*(vae.parameters() for vae in vaes), strict=True):
        assert torch.equal(one, other)


def test_units_of_a_unet_go_and_compress_opens_it(dense, tmp_path):
    steps = {"unet": [{"prune": "channels", "by": "magnitude", "remove": "30%"}]}
    recipe = tmp_path / "small.yaml"
    recipe.write_text(json.dumps({"steps": [{"components": steps}]}))
    (row,) = compress.run(recipe, dense, tmp_path / "out")
    small = compress.load(tmp_path / "out" / "unet", build="diffusers:UNet2DConditionModel")
    assert isinstance(small, nn.Module) and row.after < 0.95 * row.before
    assert row.after == sum(int(p.count_nonzero()) for p in small.parameters())
    assert small(**example_of(small, 0)).sample.shape == (4, 4, 8, 8)


def test_a_walk_stops_before_a_jump_and_not_on_a_slope():
    smooth = [part**1.5 for part in torch.arange(0.05, 0.55, 0.05).tolist()]
    assert walk(lambda part: smooth[round(part * 10) - 1]).before == 10
    found = walk(lambda part: 0.9 if part > 0.65 else 0.02 + part / 10)
    assert (found.before, found.cliff, len(found.damage)) == (6, True, 7)
    assert walk(lambda part: float("nan")).before == 0
    assert walk(lambda part: part**6 / 100).before == 10  # steep, and of no consequence


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({"vea": [{"prune": "channels", "by": "magnitude", "remove": "9%"}]}, "has no vea; it has text_encoder"),
        ({"unet": [{"prune": "channels", "by": "magnitude", "until": "10%"}]}, "say how much goes by `remove`"),
        ({"unet": [{"prune": "delta", "base": "x", "remove": "9%"}]}, "is no step of a component"),
    ],
)
def test_wrong_components_are_named(steps, words, dense, tmp_path):
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(json.dumps({"steps": [{"components": steps}]}))
    with pytest.raises(InputError, match=words):
        compress.run(recipe, dense, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pipelines_and_models_are_not_taken_for_each_other(dense, tmp_path):
    with pytest.raises(InputError, match="write its steps under `components:`"):
        compress.run("magnitude-20", dense, tmp_path / "out")
    with pytest.raises(InputError, match="no pipeline"):
        compress.run("sd-47-35", dense / "text_encoder", tmp_path / "out")
    index = tmp_path / "own"
    (index / "unet").mkdir(parents=True)
    (index / "unet" / "x.safetensors").touch()
    (index / "model_index.json").write_text(json.dumps({"unet": ["my_code", "Net"]}))
    with pytest.raises(InputError, match="has no text_encoder; it has none"):  # code of its own is not run
        compress.run("sd-47-35", index, tmp_path / "out")
