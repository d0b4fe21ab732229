"""Architectures built without memory, and weights found under whatever name they are stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import zoo
from safetensors.torch import load_file, save_file

from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError, ModelError
from compress.model.build import empty_model, load_config, model_class
from compress.model.weights import Weights, runnable_model


def rename(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({change(name): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")


def edit(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize("name", zoo.MODELS)
def test_buffers_are_those_of_from_pretrained(name, tmp_path):
    checkpoint = zoo.save(name, tmp_path)
    model, reference = runnable_model(checkpoint), zoo.stock(name, tmp_path)
    assert all(parameter.is_meta for parameter in model.parameters())
    stored, expected = set(model.state_dict()), dict(reference.named_buffers())
    for buffer, value in model.named_buffers():
        assert value.is_meta if buffer in stored else torch.equal(value, expected[buffer])
    empty: Any = empty_model(load_config(checkpoint))
    assert all(value.is_meta for value in (*empty.parameters(), *empty.buffers()))
    assert type(empty) is type(reference) and not empty.training and empty.config._attn_implementation == "eager"


@pytest.mark.parametrize("name", zoo.MODELS)
def test_all_weights_are_found(name, tmp_path):
    checkpoint = zoo.save(name, tmp_path)
    model = runnable_model(checkpoint)
    weights = Weights(checkpoint, model)
    assert not weights.missing and not weights.unexpected
    loaded = weights.load("")
    assert set(loaded) == set(weights.names(""))
    for key, value in zoo.stock(name, tmp_path).state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    weights.unload("")
    assert all(parameter.is_meta for parameter in model.parameters())


def test_huge_models_cost_nothing():
    config = transformers.LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8
    )
    config.architectures = ["LlamaForCausalLM"]
    assert sum(p.numel() for p in empty_model(config).parameters()) > 6e10


def test_tied_tensors_are_one_object_when_loaded(tmp_path):
    checkpoint = zoo.save("llama", tmp_path)
    model = runnable_model(checkpoint)
    weights = Weights(checkpoint, model)
    assert weights.disk_name("lm_head.weight") == "model.embed_tokens.weight"
    assert weights.first_name("lm_head.weight") == "model.embed_tokens.weight"
    rest = weights.load_rest(zoo.graph("llama").blocks)
    assert set(rest) == {"model.embed_tokens.weight", "model.norm.weight"}
    assert model.lm_head.weight is model.model.embed_tokens.weight  # pyright: ignore


def test_load_touches_only_the_module_asked_for(tmp_path):
    checkpoint = zoo.save("llama", tmp_path)
    model = runnable_model(checkpoint)
    loaded = Weights(checkpoint, model).load("model.layers.1", torch.bfloat16)
    assert {value.dtype for value in loaded.values()} == {torch.bfloat16}
    assert {name for name, p in model.named_parameters() if not p.is_meta} == set(loaded)
    assert all(name.startswith("model.layers.1.") for name in loaded)


def test_a_prefix_on_disk_or_in_the_model_does_not_matter(tmp_path):
    zoo.save("bert_encoder", tmp_path)
    rename(tmp_path, lambda name: f"bert.{name}")
    weights = Weights(checkpoint := open_checkpoint(tmp_path), runnable_model(checkpoint))
    assert weights.disk_name("pooler.dense.bias") == "bert.pooler.dense.bias"
    other = tmp_path / "other"
    zoo.save("llama", other)
    rename(other, lambda name: name.removeprefix("model."))
    weights = Weights(checkpoint := open_checkpoint(other), runnable_model(checkpoint))
    assert weights.disk_name("model.norm.weight") == "norm.weight"


def test_old_names_of_layer_norms(tmp_path):
    zoo.save("bert", tmp_path)
    rename(
        tmp_path,
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
    )
    weights = Weights(checkpoint := open_checkpoint(tmp_path), runnable_model(checkpoint))
    assert weights.disk_name("bert.embeddings.LayerNorm.weight") == "bert.embeddings.LayerNorm.gamma"


def test_a_missing_weight_is_named(tmp_path):
    zoo.save("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    with pytest.raises(ModelError, match=r"needs model\.norm\.weight, which is neither stored nor tied"):
        Weights(checkpoint, runnable_model(checkpoint))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_the_weights_is_refused(value, tmp_path):
    zoo.save("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.norm.weight"][3] = value
    save_file(tensors, tmp_path / "model.safetensors")
    weights = Weights(checkpoint := open_checkpoint(tmp_path), runnable_model(checkpoint))
    with pytest.raises(InputError, match=r"model\.safetensors: tensor model\.norm\.weight holds NaN"):
        weights.load("model.norm")


def test_shapes_that_contradict_the_config(tmp_path):
    zoo.save("llama", tmp_path)
    edit(tmp_path, intermediate_size=40)
    with pytest.raises(ModelError, match=r"is \[48, 32\], config\.json asks for \[40, 32\]"):
        Weights(checkpoint := open_checkpoint(tmp_path), runnable_model(checkpoint))


def test_ties_that_differ_on_disk_are_refused(tmp_path):
    zoo.save("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, tmp_path / "model.safetensors")
    weights = Weights(checkpoint := open_checkpoint(tmp_path), runnable_model(checkpoint))
    with pytest.raises(InputError, match="set tie_word_embeddings to false"):
        weights.load("lm_head")


def test_code_of_the_checkpoint_is_not_run_unasked(tmp_path):
    zoo.save("llama", tmp_path)
    (tmp_path / "configuration_own.py").write_text("raise SystemExit('run')")
    edit(tmp_path, model_type="own", auto_map={"AutoConfig": "configuration_own.OwnConfig"})
    with pytest.raises(InputError, match="--trust-remote-code"):
        load_config(open_checkpoint(tmp_path))


def test_unknown_architectures(tmp_path):
    zoo.save("llama", tmp_path)
    edit(tmp_path, architectures=["NoSuchModel"])
    checkpoint = open_checkpoint(tmp_path)
    with pytest.raises(ModelError, match="no class NoSuchModel"):
        model_class(load_config(checkpoint), checkpoint)
    edit(tmp_path, model_type="nosuch")
    with pytest.raises(InputError, match=r"config\.json: not understood by transformers"):
        load_config(open_checkpoint(tmp_path))
