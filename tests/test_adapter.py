"""LoRA adapters as input: every tensor is what peft's merge_and_unload makes of it, and the rest goes on from there."""

import json
import re
import shutil
from pathlib import Path

import peft
import pytest
import torch
import zoo
from safetensors.torch import load_file, save_file

import compress
from compress import cli
from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError

PROJECTIONS = ["q_proj", "v_proj", "o_proj", "down_proj"]
CASES = {
    "plain": ("llama", {"target_modules": PROJECTIONS, "lora_alpha": 16}),
    "rank-stabilised": ("llama", {"target_modules": PROJECTIONS, "use_rslora": True}),
    "patterns": (
        "llama",
        {
            "target_modules": PROJECTIONS,
            "rank_pattern": {"down_proj": 2},
            "alpha_pattern": {"layers.1.self_attn.q_proj": 40, "v_proj": 3},
        },
    ),
    "some layers": ("llama", {"target_modules": ["up_proj"], "layers_to_transform": [1]}),
    "DoRA": ("llama", {"target_modules": PROJECTIONS, "use_dora": True}),
    "biases": ("qwen2", {"target_modules": ["q_proj", "k_proj"], "bias": "all"}),
    "biases of LoRA's": ("qwen2", {"target_modules": ["q_proj", "k_proj"], "bias": "lora_only"}),
    "whole modules": ("qwen2", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "input_layernorm"]}),
    "embeddings": ("qwen2", {"target_modules": ["embed_tokens", "lm_head"]}),
    "transposed": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "transposed DoRA": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "use_dora": True}),
    "an encoder": ("bert", {"target_modules": ["query", "dense"]}),
}


def make(name, folder, **asked):
    """`base`, a random `adapter` of it, and what peft merges them to, `merged`, in `folder`."""
    zoo.save(name, folder / "base")
    model = peft.get_peft_model(zoo.stock(name, folder / "base"), peft.LoraConfig(r=4, **asked))
    generator = torch.Generator().manual_seed(0)
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = parameter.data * (1 + 0.3 * noise) if "magnitude" in key else parameter.data + 0.2 * noise
    model.save_pretrained(folder / "adapter")
    model.merge_and_unload().save_pretrained(folder / "merged")
    return folder / "adapter"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_is_what_peft_merges(place, case):
    name, asked = CASES[case]
    opened, wanted = open_checkpoint(make(name, place, **asked)), open_checkpoint(place / "merged")
    dense = open_checkpoint(place / "base")
    assert opened.tensors.keys() == wanted.tensors.keys()
    changed = []
    for key in wanted.tensors:
        torch.testing.assert_close(opened.read(key), wanted.read(key), atol=2e-6, rtol=1e-5)
        if not torch.allclose(wanted.read(key), dense.read(key), atol=1e-3):
            changed.append(key)
    assert changed and opened.adapter is not None and set(changed) == set(opened.adapter.changes)


@pytest.mark.slow
def test_a_recipe_makes_of_the_adapter_what_it_makes_of_the_merged_model(place):
    adapter = make("llama", place, target_modules=PROJECTIONS)
    report = compress.run("magnitude-20", adapter, place / "out", evaluate=False)
    compress.run("magnitude-20", place / "merged", place / "wanted", evaluate=False)
    found, wanted = (load_file(place / name / "model.safetensors") for name in ("out", "wanted"))
    assert found.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(found[key], wanted[key], atol=2e-6, rtol=1e-5)
    assert f"the LoRA adapter {adapter} is merged into {place / 'base'}" in report["notes"]
    model = compress.load(adapter)
    ids = torch.arange(10).view(1, 10)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, zoo.stock("llama", place / "merged")(ids).logits)


def test_the_dense_model_of_the_report_has_the_adapter_in_it(place):
    """Perplexity before pruning is the merged model's, read whole."""
    adapter = make("llama", place, target_modules=PROJECTIONS)
    layer = compress.load(adapter).model.layers[0].self_attn.q_proj.weight
    merged = load_file(place / "merged" / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    base = load_file(place / "base" / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    torch.testing.assert_close(layer, merged)
    assert not torch.allclose(layer, base, atol=1e-3)


def test_half_precision_is_rounded_once(place):
    adapter = make("llama", place, target_modules=["q_proj"])
    file = place / "base" / "model.safetensors"
    half = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(half, file, {"format": "pt"})
    key = "model.layers.0.self_attn.q_proj.weight"
    a, b = (load_file(adapter / "adapter_model.safetensors")[f"{Q}.lora_{x}.weight"] for x in "AB")
    found = open_checkpoint(adapter).read(key)
    assert torch.equal(found, (half[key].float() + 8 / 4 * (b @ a)).bfloat16())


def test_a_tensor_that_is_replaced_is_added_to_as_well(place):
    """As embeddings are, which peft saves whole beside what it has learnt of them."""
    adapter = make("llama", place, target_modules=["q_proj"])
    whole = torch.randn(32, 32, generator=torch.Generator().manual_seed(5))
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, f"{Q}.base_layer.weight": whole}, file, {"format": "pt"})
    found = open_checkpoint(adapter).read("model.layers.0.self_attn.q_proj.weight")
    torch.testing.assert_close(found, whole + 2 * tensors[f"{Q}.lora_B.weight"] @ tensors[f"{Q}.lora_A.weight"])


def test_files_that_leave_a_prefix_out_are_found(place):
    """The hub's gpt2 stores `h.0.attn…`, the class calls it `transformer.h.0.attn…`."""
    adapter = make("gpt2", place, target_modules=["c_attn"], fan_in_fan_out=True)
    file = place / "base" / "model.safetensors"
    save_file(
        {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"}
    )
    wanted = load_file(place / "merged" / "model.safetensors")["transformer.h.1.attn.c_attn.weight"]
    torch.testing.assert_close(open_checkpoint(adapter).read("h.1.attn.c_attn.weight"), wanted)


def test_the_digest_covers_both(place):
    adapter = make("llama", place, target_modules=["q_proj"])
    digests = {open_checkpoint(adapter).digest, open_checkpoint(place / "base").digest}
    shutil.move(place / "base", place / "elsewhere")
    assert open_checkpoint(adapter, base=place / "elsewhere").digest in digests and len(digests) == 2
    for folder, name in ((adapter, "adapter_model.safetensors"), (place / "elsewhere", "model.safetensors")):
        tensors = load_file(folder / name)
        first = min(tensors)
        save_file({**tensors, first: tensors[first] + 1}, folder / name, {"format": "pt"})
        digests.add(open_checkpoint(adapter, base=place / "elsewhere").digest)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 1}))
    digests.add(open_checkpoint(adapter, base=place / "elsewhere").digest)
    assert len(digests) == 5


def test_an_adapter_that_changes_meanwhile_is_noticed(place):
    adapter = make("llama", place, target_modules=["q_proj"])
    opened = open_checkpoint(adapter)
    with pytest.raises(InputError, match="adapter_model"), opened.unchanged():
        shutil.copy(adapter / "adapter_model.safetensors", place / "copy")
        (adapter / "adapter_model.safetensors").unlink()


def test_the_command_takes_the_base(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    make("llama", place, target_modules=["q_proj"])
    shutil.move("base", "elsewhere")
    assert cli.call(["magnitude-20", "adapter", "out", "--no-evaluate"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "adapter_config.json: its base model:" in said and "no such folder" in said and "--base MODEL" in said
    assert cli.call(["magnitude-20", "adapter", "out", "--no-evaluate", "--base", "elsewhere"]) == 0
    assert cli.call(["inspect", "elsewhere", "--base", "elsewhere"]) == 2
    assert "is no adapter" in capsys.readouterr().err


def test_tokenizers_of_the_adapter_that_differ_are_told_of(place):
    adapter = make("llama", place, target_modules=["q_proj"])
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    (adapter / "tokenizer.json").write_text("{}")
    (place / "base" / "tokenizer.json").write_text("{}")
    (said,) = (text for text in open_checkpoint(adapter).left_behind if "left behind" in text)
    assert said.endswith("as its base's files are kept: chat_template.jinja")


def _config(**fields):
    def change(adapter: Path):
        file = adapter / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return change


def _tensors(change):
    def apply(adapter: Path):
        file = adapter / "adapter_model.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, {"format": "pt"})

    return apply


Q = "base_model.model.model.layers.0.self_attn.q_proj"
REFUSED = {
    "another kind": (_config(peft_type="IA3"), "adapter_config.json: peft_type: 'IA3' cannot be merged here"),
    "activated": (_config(alora_invocation_tokens=[1]), "alora_invocation_tokens: [1] is not merged here"),
    "fused experts": (_config(target_parameters=["experts"]), "target_parameters: ['experts'] is not merged here"),
    "a changed base": (_config(init_lora_weights="pissa"), "init_lora_weights: 'pissa' changes the base's weights too"),
    "alpha": (_config(lora_alpha="much"), "lora_alpha: 'much' is no number"),
    "patterns": (_config(alpha_pattern={"(": 3}), "alpha_pattern: not patterns of names and their numbers"),
    "a pattern's number": (_config(alpha_pattern={"q_proj": "x"}), "alpha_pattern: not patterns of names"),
    "no name": (_config(base_model_name_or_path=5), "base_model_name_or_path: 5 is no name"),
    "no base": (_config(base_model_name_or_path=None), "base_model_name_or_path: names no model; pass --base MODEL"),
    "base gone": (_config(base_model_name_or_path="./gone"), "its base model: ./gone: no such folder"),
    "base an adapter": (_config(base_model_name_or_path="adapter"), "its base model: adapter: an adapter too"),
    "no JSON": (lambda adapter: (adapter / "adapter_config.json").write_text("{"), "not the config of a LoRA adapter"),
    "pickled": (
        lambda adapter: (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin"),
        "adapter_model.bin is a pickle, save it as safetensors",
    ),
    "no tensors": (lambda adapter: (adapter / "adapter_model.safetensors").unlink(), "adapter_model.safetensors: miss"),
    "unknown module": (
        _tensors(lambda t: t.update({f"{Q[:-1]}x.lora_{x}.weight": t.pop(f"{Q}.lora_{x}.weight") for x in "AB"})),
        "changes model.layers.0.self_attn.q_prox.weight, which the base model does not store; did you mean "
        "'model.layers.0.self_attn.q_proj.weight'",
    ),
    "half a pair": (_tensors(lambda t: t.pop(f"{Q}.lora_B.weight")), "model.layers.0.self_attn.q_proj has lora_A only"),
    "ranks": (
        _tensors(lambda t: t.update({f"{Q}.lora_A.weight": torch.zeros(3, 32)})),
        "A is [3, 32], B [32, 4], model.layers.0.self_attn.q_proj.weight of the base [32, 32], which do not fit",
    ),
    "width": (_tensors(lambda t: t.update({f"{Q}.lora_A.weight": torch.zeros(4, 40)})), "A is [4, 40]"),
    "a convolution": (
        _tensors(lambda t: t.update({f"{Q}.lora_A.weight": torch.zeros(4, 32, 1, 1)})),
        "only matrices are merged here",
    ),
    "more tokens": (
        _tensors(lambda t: t.update({"base_model.model.model.embed_tokens.weight": torch.zeros(99, 32)})),
        "embed_tokens.weight is [99, 32], model.embed_tokens.weight of the base [96, 32]",
    ),
    "a bias of B": (
        _tensors(lambda t: t.update({f"{Q}.lora_B.bias": torch.zeros(32)})),
        "lora_B.bias is of a form that is not merged here",
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    make("llama", folder, target_modules=["q_proj"])
    return folder


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_is_refused(whole, tmp_path, monkeypatch, case):
    change, said = REFUSED[case]
    shutil.copytree(whole / "adapter", tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    change(tmp_path / "adapter")
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        open_checkpoint(tmp_path / "adapter")
    assert "\n" not in str(caught.value)
