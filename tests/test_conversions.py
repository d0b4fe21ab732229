"""Tensors that stock transformers make of stored ones when they load: read, pruned, and opened again."""

import json

import pytest
import torch
import transformers
import zoo
from safetensors.torch import load_file

from compress.checkpoint.open import open_checkpoint
from compress.errors import ModelError
from compress.model.build import empty_model, load_config, model_class, runnable_model
from compress.model.weights import Weights
from compress.output_format.config import config_from
from compress.pipeline import Options, apply, plan
from compress.recipe.read import parse_recipe

SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
HALF = parse_recipe("steps:\n- {prune: [heads, channels], by: magnitude, remove: 50%}\n")
QUICK = Options(evaluate=False)


def saved(folder, name, config, **more):
    torch.manual_seed(0)
    made = getattr(transformers, config)(**SIZES, **more)
    model = getattr(transformers, name)(made).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture
def gte(tmp_path):
    return tmp_path / "in", saved(tmp_path / "in", "GteForMaskedLM", "GteConfig")


def weights(folder):
    checkpoint = open_checkpoint(folder)
    config = load_config(checkpoint)
    return Weights(checkpoint, empty_model(config, model_class(config, checkpoint)))


def test_a_fused_projection_is_read_in_the_parts_that_the_model_has(gte):
    folder, model = gte
    stored = load_file(folder / "model.safetensors")
    fused = next(name for name in stored if "layer.0" in name and name.endswith("qkv_proj.weight"))
    read = weights(folder)
    for number, part in enumerate("qkv"):
        name = f"gte.layers.0.self_attn.{part}_proj.weight"
        assert read.read(name).equal(stored[fused].chunk(3)[number])
        assert read.read(name).equal(model.get_parameter(name))
    assert fused not in read.checkpoint.tensors and not read.unexpected
    assert read.checkpoint.digest == open_checkpoint(folder).digest


def test_what_is_not_whole_is_missing(gte, tmp_path):
    from safetensors.torch import save_file

    folder, _ = gte
    stored = load_file(folder / "model.safetensors")
    fused = next(name for name in stored if "layer.0" in name and name.endswith("qkv_proj.weight"))
    save_file({n: x[:-1] if n == fused else x for n, x in stored.items()}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"needs gte\.layers\.0\.self_attn\.q_proj\.weight and \d+ more"):
        weights(folder)


@pytest.mark.slow
def test_it_is_planned_applied_and_opened_by_stock_classes(gte, tmp_path):
    folder, _ = gte
    apply(plan(HALF, folder), folder, tmp_path / "out", QUICK)
    cut, found = transformers.GteForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(found.values())
    assert cut.config.num_attention_heads == 2 and cut.config.intermediate_size == 24
    assert cut(torch.arange(12)[None]).logits.isfinite().all()


def test_infinite_numbers_of_a_config_are_read_as_such(tmp_path):
    transformers.BambaConfig().save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["time_step_limit"] == [0.0, {"__float__": "Infinity"}]
    assert config_from(raw).time_step_limit[1] == float("inf")


def test_what_an_architecture_draws_by_itself_gives_way_to_what_is_stored(tmp_path):
    more = {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
    model = saved(tmp_path, "DiffLlamaForCausalLM", "DiffLlamaConfig", **more)
    runnable = runnable_model(open_checkpoint(tmp_path))
    Weights(open_checkpoint(tmp_path), runnable).load("")
    assert runnable.model.layers[0].self_attn.lambda_q1.equal(model.model.layers[0].self_attn.lambda_q1)
    ids = zoo.batches("llama")[0]["input_ids"]
    assert torch.equal(runnable(input_ids=ids).logits, model(input_ids=ids).logits)
