"""Uniform widths: an ordinary checkpoint of a stock architecture, its numbers found by experiment."""

import json

import numpy as np
import pytest
import torch
import transformers as tf
import zoo
from pruned import CASES, cut, logits, masks
from safetensors.torch import save_file
from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from compress.output_format import native, probe, solve
from compress.output_format.config import written
from compress.output_format.native import NativePlan, config_from, find_native
from compress.output_format.relatives import RELATIVES, relatives

# Heads cut from 8 to 6 at a hidden size of 64: what is written, or why no stock architecture can be.
HEADS = {
    **dict.fromkeys(("mistral", "qwen2", "qwen3", "phi3", "t5"), "own"),
    "llama": "MistralForCausalLM",  # a Llama's hidden size must be a multiple of its heads
    **dict.fromkeys(("gemma2", "gemma3"), "not a multiple"),
    # Width of a head is hidden / heads, so heads move no size by themselves.
    **dict.fromkeys(("gpt2", "opt", "gpt_neox", "falcon", "distilbert"), "none"),
    **dict.fromkeys(("bert", "roberta", "electra", "albert"), "none"),
}


def shapes_of(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def opens(folder, plan, state, dense):
    """Write it, load it with stock transformers, nothing missing; the logits."""
    (folder / "config.json").write_text(json.dumps(plan.config))
    tied = set(dense.all_tied_weights_keys)
    zeros = {name: torch.zeros(shape) for name, shape in plan.zeros.items()}
    tensors = {k: v for k, v in {**state, **zeros}.items() if k not in tied}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model, info = getattr(tf, plan.architecture).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return logits(model.eval())


def few(case, heads, channels):
    size = len(masks(case, 1, 1)["heads"])
    return masks(case, size if heads is None else size * heads // 8, channels)


@pytest.mark.parametrize("name", zoo.few(CASES))
def test_channels_are_always_native(name, tmp_path):
    case, dense = CASES[name], CASES[name].model()
    state = cut(case, dense, lambda layer: few(case, None, 80))
    plan = find_native(case.config(), case.cls, shapes_of(state))
    assert isinstance(plan, NativePlan), plan
    assert plan.architecture == case.architecture and 80 in [new for _, new in plan.edits.values()]
    torch.testing.assert_close(opens(tmp_path, plan, state, dense), logits(dense), atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.few(CASES))
def test_heads_are_native_where_their_width_is_a_number_of_its_own(name, tmp_path):
    case, dense = CASES[name], CASES[name].model()
    state = cut(case, dense, lambda layer: few(case, 6, 80))
    plan = find_native(case.config(), case.cls, shapes_of(state))
    expected = HEADS[name]
    if expected == "none":
        assert isinstance(plan, str) and ("no number moves" in plan or "depend on" in plan), plan
    elif expected == "not a multiple":
        assert isinstance(plan, str) and expected in plan
    else:
        assert isinstance(plan, NativePlan), plan
        assert plan.architecture == (case.architecture if expected == "own" else expected)
        assert plan.zeros == {}
        torch.testing.assert_close(opens(tmp_path, plan, state, dense), logits(dense), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", zoo.few(["gemma2", "gemma3", "llama"]))
def test_heads_that_divide_the_hidden_size_need_no_relative(name):
    case = CASES[name]
    state = cut(case, case.model(), lambda layer: few(case, 4, 80))
    plan = find_native(case.config(), case.cls, shapes_of(state))
    assert isinstance(plan, NativePlan) and plan.architecture == case.architecture
    assert plan.edits["num_attention_heads"] == (8, 4) and plan.edits["num_key_value_heads"] == (4, 2)


@pytest.mark.parametrize("name", zoo.few(n for n in CASES if n != "albert"))
def test_dropped_layers_edit_every_list_of_layers(name):
    case, dense = CASES[name], CASES[name].model()
    stacks = [stack.name for stack in probe.stacks(dense)]
    names = [n for n in dense.state_dict() if not any(n.startswith(f"{s}.2.") for s in stacks)]
    shapes = {n: tuple(dense.state_dict()[n].shape) for n in names}
    plan = find_native(case.config(), case.cls, shapes, kept_layers={s: [0, 2] for s in stacks})
    assert isinstance(plan, NativePlan), plan
    if "layer_types" in plan.config:
        assert plan.config["layer_types"] == [dense.config.layer_types[i] for i in (0, 2)]


@pytest.mark.parametrize("name", zoo.few(["llama", "qwen3", "gpt2", "bert", "t5", "opt"], ("llama",)))
def test_hidden_and_vocabulary(name):
    case = CASES[name]
    config = case.config()
    names = {"gpt2": {"n_embd": 48, "n_head": 6}, "t5": {"d_model": 48}, "bert": {"hidden_size": 48}}
    target = {"hidden_size": 48, "num_attention_heads": 6} if name in ("bert", "opt") else names.get(name)
    target = {**(target or {"hidden_size": 48}), "vocab_size": 90}
    target |= {"word_embed_proj_dim": 48} if name == "opt" else {}
    target |= {"n_inner": 256} if name == "gpt2" else {}  # channels stay
    target |= {"head_dim": 8} if name == "llama" else {}
    smaller = type(config)(**{**{k: v for k, v in config.to_dict().items() if k != "model_type"}, **target})
    with torch.device("meta"):
        shapes = shapes_of(case.cls(smaller).state_dict())
    plan = find_native(config, case.cls, shapes)
    assert isinstance(plan, NativePlan), plan
    assert {k: plan.config[k] for k in target} == target


def test_width_of_heads_must_be_named():
    case = CASES["mistral"]
    state = cut(case, case.model(), lambda layer: {"width": np.arange(8) < 4})
    plan = find_native(case.config(), case.cls, shapes_of(state), head_dim=4)
    assert isinstance(plan, NativePlan) and plan.config["head_dim"] == 4 and plan.config["num_attention_heads"] == 8
    plan = find_native(case.config(), case.cls, shapes_of(state))
    assert isinstance(plan, NativePlan) and plan.config["head_dim"] == 8 and plan.config["num_attention_heads"] == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "heads", "architecture"),
    [
        ("llama", 4, "LlamaForCausalLM"),
        ("llama", 6, "GraniteForCausalLM"),
        ("mistral", 4, "LlamaForCausalLM"),
        ("mistral", 6, "GraniteForCausalLM"),
        ("qwen2", 4, "LlamaForCausalLM"),
        ("qwen2", 6, "GraniteForCausalLM"),
    ],
)
def test_biases_of_a_repair_switch_flags_on_and_the_others_are_zero(name, heads, architecture, tmp_path):
    case, dense = CASES[name], CASES[name].model()
    state = cut(case, dense, lambda layer: few(case, heads, 80))
    biases = []
    for i, layer in enumerate(dense.model.layers):
        for path in ("self_attn.o_proj", "mlp.down_proj"):
            biases.append(f"model.layers.{i}.{path}.bias")
            state[biases[-1]] = torch.randn(64)
            layer.get_submodule(path).bias = nn.Parameter(state[biases[-1]].clone())
    plan = find_native(case.config(), case.cls, shapes_of(state), extra_biases=biases)
    assert isinstance(plan, NativePlan), plan
    assert plan.architecture == architecture
    assert "model.layers.2.mlp.up_proj.bias" in plan.zeros and not plan.zeros.keys() & state.keys()
    torch.testing.assert_close(opens(tmp_path, plan, state, dense), logits(dense), atol=1e-4, rtol=0)


def test_biases_that_no_flag_brings_are_named():
    case = CASES["qwen3"]
    shapes = {**shapes_of(case.model().state_dict()), "model.layers.1.mlp.down_proj.bias": (64,)}
    plan = find_native(case.config(), case.cls, shapes, extra_biases=["model.layers.1.mlp.down_proj.bias"])
    assert isinstance(plan, str) and "down_proj.bias" in plan


@pytest.mark.parametrize("row", RELATIVES, ids=lambda row: f"{row.source}-{row.target}")
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("rope", ["default", "llama3"])
def test_relatives_compute_the_same_function(row, biases, rope):
    case = CASES[row.source]
    config = case.config()
    config.rope_parameters = {"rope_type": "default", "rope_theta": 500000.0}
    if rope == "llama3":
        scaling = {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8,
        }
        config.rope_parameters |= {"rope_type": "llama3", **scaling}
    if biases:
        if row.source != "llama" or row.target == "mistral":
            return
        config.attention_bias = config.mlp_bias = True
    torch.manual_seed(0)
    model = case.cls(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    found = [pair for pair in relatives(config, case.cls) if pair[0]["model_type"] == row.target]
    ((raw, cls),) = found
    other = cls(config_from(raw)).eval()
    lacking, unexpected = other.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected and all(name.endswith("o_proj.bias") for name in lacking)
    for name in lacking:
        other.get_parameter(name).data.zero_()
    torch.testing.assert_close(logits(other), logits(model), atol=1e-6, rtol=0)


def test_relatives_are_not_offered_where_they_differ():
    case = CASES["mistral"]
    config = tf.MistralConfig(**{**case.config().to_diff_dict(), "sliding_window": 8})
    assert relatives(config, case.cls) == []
    config = CASES["llama"].config()
    config.attention_bias = True
    assert [cls.__name__ for _, cls in relatives(config, CASES["llama"].cls)] == ["GraniteForCausalLM"]


def test_older_readers_find_the_base_of_rope():
    config = CASES["llama"].config()
    config.rope_parameters = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}
    config.rope_parameters |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    raw = written(config.to_diff_dict(), config, {})
    assert raw["rope_theta"] == 500000.0 and raw["rope_scaling"]["factor"] == 8.0
    assert config_from(raw).rope_parameters == config.rope_parameters


def test_numbers_that_the_file_leaves_out_are_spelled_out():
    raw = {k: v for k, v in CASES["llama"].config().to_diff_dict().items() if k != "head_dim"}
    shapes = shapes_of(cut(CASES["llama"], CASES["llama"].model(), lambda layer: few(CASES["llama"], 4, 80)))
    plan = find_native(raw, tf.LlamaForCausalLM, shapes)
    assert isinstance(plan, NativePlan) and plan.config["head_dim"] == 8


def find_70b(layers):
    """The shape of Llama 70B, with half of its heads, narrower channels and two layers fewer."""
    sizes = dict(hidden_size=8192, num_attention_heads=64, num_key_value_heads=8, vocab_size=128256)
    config = tf.LlamaConfig(**sizes, intermediate_size=28672, num_hidden_layers=layers)
    smaller = tf.LlamaConfig(**sizes | dict(num_attention_heads=32, num_key_value_heads=4, head_dim=128))
    smaller.num_hidden_layers, smaller.intermediate_size = layers - 2, 20480
    with torch.device("meta"):
        shapes = shapes_of(tf.LlamaForCausalLM(smaller).state_dict())
    plan = find_native(config, tf.LlamaForCausalLM, shapes, kept_layers={"model.layers": range(layers - 2)})
    assert isinstance(plan, NativePlan), plan
    assert plan.config["head_dim"] == 128 and plan.config["num_attention_heads"] == 32


@pytest.mark.slow
def test_experiments_on_a_70b_configuration_are_made_on_a_few_layers(monkeypatch):
    """Of all that are tried, a model of every layer is built for the original and for the answer only."""
    built, init = [0], LlamaDecoderLayer.__init__

    def count(self, *given):
        built[0] += 1
        init(self, *given)

    monkeypatch.setattr(LlamaDecoderLayer, "__init__", count)
    of = {}
    for layers in (40, 80):
        for module, remembered in ((probe, "_measured"), (solve, "_dead"), (native, "_depths")):
            monkeypatch.setattr(module, remembered, {})
        built[0] = -(layers - 2)  # the pruned model, which is built for the shapes that are asked for
        find_70b(layers)
        of[layers] = built[0]
    assert of[80] - of[40] == 2 * 40 and of[40] > 2 * 40
