"""Widths that differ by layer: the folder loads in stock transformers and computes the masked dense model."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
import zoo
from pruned import CASES, cut, logits, masks
from safetensors.torch import save_file
from torch import nn

from compress.checkpoint.beside import MODELING_FILE
from compress.errors import ModelError
from compress.model import modeling_compress
from compress.model.build import empty_model
from compress.output_format.generic import auto_class, generic_plan
from compress.output_format.native import find_native

WIDTHS = ((0.75, 80), (0.5, 96), (1.0, None))  # share of the heads, channels kept, by layer; the last one stays whole
EMPTY = {"shapes": {}, "biases": {}, "attributes": {}}


def by_layer(name, case, layer):
    heads, channels = WIDTHS[layer]
    if name == "t5":  # one table of positions serves every layer of a stack
        heads = 0.75
    size = len(masks(case, 1, 1)["heads"])
    seed = 7 if name == "t5" else layer
    result = masks(case, int(heads * size), channels or case.channels, seed=seed)
    return result


def write(folder, plan, state, model):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(plan.config))
    tied = {n for n in model.all_tied_weights_keys}
    save_file({k: v for k, v in state.items() if k not in tied}, folder / "model.safetensors", {"format": "pt"})
    shutil.copy(MODELING_FILE, folder)


def make(name, folder):
    case = CASES[name]
    dense = case.model()
    state = cut(case, dense, lambda layer: by_layer(name, case, layer))
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    plan = generic_plan(case.config(), case.cls, shapes)
    write(folder, plan, state, dense)
    return case, dense, shapes, plan


@pytest.mark.parametrize("name", zoo.few(CASES))
def test_layers_of_different_width_equal_the_masked_dense_model(name, tmp_path):
    case, dense, shapes, _ = make(name, tmp_path / "a")
    if name not in ("albert",):  # its layers are one
        assert "differ by layer" in find_native(case.config(), case.cls, shapes)
    auto = getattr(tf, auto_class(case.config(), case.cls))
    model, info = auto.from_pretrained(tmp_path / "a", trust_remote_code=True, output_loading_info=True)
    assert not any(info.values()), info
    assert isinstance(model, case.cls)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == shapes
    expected = logits(dense)
    torch.testing.assert_close(logits(model.eval()), expected, atol=1e-4, rtol=0)
    if dense.config.tie_word_embeddings and model.get_output_embeddings() is not None:
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight

    model.save_pretrained(tmp_path / "b")
    assert (tmp_path / "b" / "modeling_compress.py").exists()
    again, info = auto.from_pretrained(tmp_path / "b", trust_remote_code=True, output_loading_info=True)
    assert not any(info.values()), info
    torch.testing.assert_close(logits(again.eval()), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", zoo.few(n for n, case in CASES.items() if "MaskedLM" not in case.architecture))
def test_generation_with_the_cache_equals_generation_without(name, tmp_path):
    case, _, _, _ = make(name, tmp_path)
    model = getattr(tf, auto_class(case.config(), case.cls)).from_pretrained(tmp_path, trust_remote_code=True).eval()
    ids = torch.tensor([[5, 9, 3, 7]])
    outputs = [model.generate(ids, do_sample=False, max_new_tokens=6, use_cache=cached) for cached in (True, False)]
    assert torch.equal(*outputs)


@pytest.mark.slow
def test_a_process_that_knows_only_transformers_opens_it(tmp_path):
    _, dense, _, _ = make("phi3", tmp_path)
    script = f"""
import sys, torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
config = AutoConfig.from_pretrained({str(tmp_path)!r}, trust_remote_code=True)
assert config.num_attention_heads == 8
model = AutoModelForCausalLM.from_pretrained({str(tmp_path)!r}, trust_remote_code=True)
body, info = AutoModel.from_pretrained({str(tmp_path)!r}, trust_remote_code=True, output_loading_info=True)
assert not info["missing_keys"] and not info["mismatched_keys"], info
ids = torch.arange(3, 16)[None]
assert torch.equal(body(ids).last_hidden_state, model.model(ids).last_hidden_state)
model.set_attn_implementation("eager")
torch.save(model(ids).logits.detach(), {str(tmp_path / "logits.pt")!r})
assert "compress" not in sys.modules
"""
    # Its own folder for the copies of remote code, and a working directory from where our package is not importable.
    done = _python(script, tmp_path)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = dense(torch.arange(3, 16)[None]).logits
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_without_trust_it_is_refused_unless_our_package_is_imported(tmp_path):
    make("gpt2", tmp_path)
    script = f"""
import sys
from pathlib import Path
from transformers import AutoModelForCausalLM
try:
    sys.exit(f"opened as {{AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})}}")
except ValueError as refusal:
    assert "trust_remote_code" in str(refusal), refusal
sys.path.insert(0, {str(Path(modeling_compress.__file__).parents[2])!r})
import compress.model.register
print(type(AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})).__mro__)
"""
    opened = _python(script, tmp_path)
    assert opened.returncode == 0, opened.stderr
    assert "GPT2LMHeadModel" in opened.stdout


def test_query_heads_of_a_group_change_the_number_of_groups(tmp_path):
    case = CASES["llama"]
    dense = case.model()
    kept = {"queries": np.array([True, False])}
    state = cut(case, dense, lambda layer: kept if layer == 1 else {})
    plan = generic_plan(case.config(), case.cls, {k: tuple(v.shape) for k, v in state.items()})
    assert plan.attributes == {"model.layers.1.self_attn": {"num_key_value_groups": 1}}
    write(tmp_path, plan, state, dense)
    model = tf.AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True)
    torch.testing.assert_close(logits(model), logits(dense), atol=1e-4, rtol=0)


def test_new_biases_dropped_layers_and_a_smaller_vocabulary(tmp_path):
    case = CASES["gemma2"]
    dense = case.model()
    state = cut(case, dense, lambda layer: masks(case, 2 + layer % 2, 80, seed=layer))
    state = {k.replace("layers.2.", "layers.1."): v for k, v in state.items() if ".layers.1." not in k}
    dense.model.layers = nn.ModuleList([dense.model.layers[0], dense.model.layers[2]])
    dense.config.num_hidden_layers = 2
    dense.config.layer_types = [dense.config.layer_types[i] for i in (0, 2)]
    dense.model.layers[1].self_attn.layer_idx = 1
    bias = "model.layers.1.mlp.down_proj.bias"
    state[bias] = torch.randn(64)
    dense.model.layers[1].mlp.down_proj.bias = nn.Parameter(state[bias].clone())
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = state[name][:90].clone()
    plan = generic_plan(
        case.config(),
        case.cls,
        {k: tuple(v.shape) for k, v in state.items()},
        kept_layers={"model.layers": [0, 2]},
        extra_biases=[bias],
    )
    assert plan.config["vocab_size"] == 90 and plan.config["num_hidden_layers"] == 2
    assert plan.config["layer_types"] == ["sliding_attention", "sliding_attention"]
    write(tmp_path, plan, state, dense)
    model, info = tf.AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True, output_loading_info=True)
    assert not any(info.values()), info
    ids = torch.randint(3, 90, (2, 13))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, dense(ids).logits[..., :90], atol=1e-4, rtol=0)
        assert model(ids, labels=ids).loss.isfinite()


def test_what_was_pruned_can_be_pruned_again(tmp_path):
    case = CASES["phi3"]
    _, dense, _, _ = make("phi3", tmp_path / "a")
    once = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "a", trust_remote_code=True)
    state = dict(once.state_dict())
    for layer, group in ((0, 3), (1, 2)):  # the last kv group of each of the two layers already cut
        prefix = f"model.layers.{layer}.self_attn."
        heads, width = 2 * group, 8
        kept = [*range((heads - 2) * width)]
        kept += [heads * width + i for i in range((group - 1) * width)]
        kept += [(heads + group) * width + i for i in range((group - 1) * width)]
        state[prefix + "qkv_proj.weight"] = state[prefix + "qkv_proj.weight"][kept]
        state[prefix + "o_proj.weight"] = state[prefix + "o_proj.weight"][:, : (heads - 2) * width].contiguous()
        with torch.no_grad():
            once.get_parameter(prefix + "o_proj.weight")[:, (heads - 2) * width :] = 0
    raw = json.loads((tmp_path / "a" / "config.json").read_text())
    plan = generic_plan(raw, type(once), {k: tuple(v.shape) for k, v in state.items()})
    assert plan.config["compressed"]["architecture"] == case.architecture
    write(tmp_path / "b", plan, state, dense)
    twice = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "b", trust_remote_code=True)
    torch.testing.assert_close(logits(twice), logits(once), atol=1e-4, rtol=0)


def test_shapes_that_cannot_run_are_an_error():
    case = CASES["gpt2"]
    shapes = {k: tuple(v.shape) for k, v in case.model().state_dict().items()}
    shapes["transformer.h.1.attn.c_attn.weight"] = (64, 176)
    with pytest.raises(ModelError, match="does not run"):
        generic_plan(case.config(), case.cls, shapes)


def test_the_modeling_file_stands_alone():
    source = inspect.getsource(modeling_compress)
    assert "import compress" not in source and "from compress" not in source


def _python(script, folder):
    env = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "PYTHONPATH": ""}
    return subprocess.run([sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True)


def test_attributes_that_are_alike_in_all_attentions_are_found_together():
    """MVP's three kinds of attention each keep the number of heads and the width that they make."""
    numbers = {"vocab_size": 96, "d_model": 32, "max_position_embeddings": 32}
    for stack in ("encoder", "decoder"):
        numbers |= {f"{stack}_layers": 1, f"{stack}_attention_heads": 4, f"{stack}_ffn_dim": 48}
    config = tf.MvpConfig(**numbers)
    with torch.device("meta"):
        shapes = {name: tuple(x.shape) for name, x in tf.MvpForConditionalGeneration(config).state_dict().items()}
    for name in shapes:
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "out_proj.weight")) and "attn" in name:
            shapes[name] = (32, 16) if "out_proj" in name else (16, 32)
        elif name.endswith(("q_proj.bias", "k_proj.bias", "v_proj.bias")):
            shapes[name] = (16,)
    plan = generic_plan(config, tf.MvpForConditionalGeneration, shapes)
    kinds = ("encoder.layers.0.self_attn", "decoder.layers.0.self_attn", "decoder.layers.0.encoder_attn")
    assert plan.attributes == {f"model.{kind}": {"num_heads": 2, "embed_dim": 16} for kind in kinds}


def test_a_detector_keeps_its_auto_class_and_its_loss():
    """Conditional DETR has a loss of its own, which transformers look up by the whole name of the class."""
    resnet = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
    sizes = {f"{stack}_{what}": n for stack in ("encoder", "decoder") for what, n in (("layers", 1), ("ffn_dim", 16))}
    config = tf.ConditionalDetrConfig(use_timm_backbone=False, backbone_config=resnet, d_model=32, **sizes)
    cls = tf.ConditionalDetrForObjectDetection
    auto = auto_class(config, cls)
    assert auto == "AutoModelForObjectDetection"
    config = modeling_compress.CompressedConfig.from_dict(
        {**config.to_dict(), "compressed": {"model_type": config.model_type, "architecture": cls.__name__, **EMPTY}}
    )
    model = modeling_compress.CompressedModel.class_for(config, auto)
    assert empty_model(config, model).loss_type == empty_model(config, cls).loss_type == cls.__name__


def test_a_model_of_two_models_is_built_from_its_own_configuration():
    tower: Any = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    one = tf.BertConfig(vocab_size=40, max_position_embeddings=16, **tower)
    config = tf.EncoderDecoderConfig.from_encoder_decoder_configs(one, one)
    config.decoder_start_token_id = config.pad_token_id = 0
    dense = tf.EncoderDecoderModel(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in dense.state_dict().items()}
    block = "encoder.encoder.layer.0."
    cut_ = {"intermediate.dense.weight": (10, 16), "intermediate.dense.bias": (10,), "output.dense.weight": (16, 10)}
    shapes |= {block + name: shape for name, shape in cut_.items()}
    plan = generic_plan(config, tf.EncoderDecoderModel, shapes)
    assert plan.architecture == "CompressedForConditionalGeneration"
    assert plan.config["compressed"]["shapes"] == {block + name: list(shape) for name, shape in cut_.items()}


def test_a_pair_of_limits_beside_two_layers_is_no_list_of_layers():
    """Mamba 2 limits its time steps by two numbers; both layers are cut alike, so that one of them is tried."""
    sizes: Any = {"hidden_size": 32, "num_heads": 8, "head_dim": 8, "n_groups": 2, "state_size": 8}
    config = tf.Mamba2Config(vocab_size=40, num_hidden_layers=2, expand=2, **sizes)
    with torch.device("meta"):
        shapes = {name: tuple(x.shape) for name, x in tf.Mamba2ForCausalLM(config).state_dict().items()}
    for name, shape in shapes.items():
        if "mixer" in name:  # one of two groups goes, with its four heads
            shapes[name] = (32, 32) if "out_proj" in name else (shape[0] // 2, *shape[1:])
    plan = generic_plan(config, tf.Mamba2ForCausalLM, shapes)
    kept = {"num_heads": 4, "intermediate_size": 32, "n_groups": 1, "conv_dim": 48}
    assert plan.attributes == {f"backbone.layers.{i}.mixer": kept for i in range(2)}
