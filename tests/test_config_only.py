"""A config alone is enough to see what can be pruned; nothing of the weights is read or fetched."""

import json
import shutil
from pathlib import Path

import moe
import pytest
import zoo

import compress
from compress import cli
from compress.checkpoint import hub
from compress.checkpoint.open import open_checkpoint, open_config
from compress.errors import InputError, ModelError
from compress.model.model import Model

LARGE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 80,
    "vocab_size": 128256,
    "dtype": "bfloat16",
}
"""Llama 3 70B."""


def config_of(model: Path, folder: Path) -> Path:
    """A folder with the config of `model` and nothing else."""
    folder.mkdir()
    shutil.copy(model / "config.json", folder)
    return folder


@pytest.mark.parametrize("name", [*zoo.MODELS, "mixtral", "qwen3_moe"])
def test_a_config_tells_what_the_weights_do(name, tmp_path):
    (zoo if name in zoo.MODELS else moe).save(name, tmp_path / "whole")
    whole = compress.inspect(tmp_path / "whole")
    alone = compress.inspect(config_of(tmp_path / "whole", tmp_path / "alone"))
    assert alone.families == whole.families and alone.blocks == whole.blocks
    assert (alone.parameters, alone.flops) == (whole.parameters, whole.flops)
    assert (whole.config_only, alone.config_only) == (False, True)
    stored = open_checkpoint(tmp_path / "whole").bytes
    assert Model.of(open_config(tmp_path / "alone")).checkpoint.bytes == stored


@pytest.mark.slow
def test_seventy_billion_parameters_are_counted(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(LARGE))
    assert cli.call(["inspect", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 70_553_706_496, "as its authors count them"
    assert found["blocks"] == 80 and found["config_only"] and "config.json alone" in found["notes"][0]
    assert Model.of(open_config(tmp_path)).checkpoint.bytes == 2 * 70_553_706_496


def test_of_the_hub_only_the_config_is_fetched(tmp_path, monkeypatch):
    zoo.save("llama", tmp_path / "remote")
    fetched = []

    def snapshot_download(name, *, revision, allow_patterns):
        fetched.append((name, revision, allow_patterns))
        return config_of(tmp_path / "remote", tmp_path / f"cached-{len(fetched)}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    found = compress.inspect("owner/name@main")
    assert found.config_only and found.blocks == 3
    compress.inspect("owner/name", trust_remote_code=True)
    configs = ["config.json", "adapter_config.json"]
    assert fetched == [("owner/name", "main", configs), ("owner/name", None, [*configs, "*.py"])]


def test_a_hub_that_does_not_answer_is_told(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot_download(*_, **__):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(InputError, match="owner/name: no such folder, and the hub cannot be reached"):
        hub.fetch_config("owner/name", None, code=False)


def test_no_weight_can_be_read(tmp_path):
    zoo.save("llama", tmp_path / "whole")
    source = Model.of(open_config(config_of(tmp_path / "whole", tmp_path / "alone")))
    with pytest.raises(InputError, match=r"alone: model\.norm\.weight was asked for, and only the config is there"):
        source.weights.read("model.norm.weight")
    with pytest.raises(InputError, match=r"no model\.safetensors .*enough for `compress inspect`"):
        open_checkpoint(tmp_path / "alone")


def test_a_folder_that_lost_a_shard_is_no_config_alone(tmp_path):
    zoo.save("llama", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "elsewhere")
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="1 of 1 shards missing"):
        compress.inspect(tmp_path / "model")


def test_a_quantised_config_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**LARGE, "quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(ModelError, match="quantised"):
        compress.inspect(tmp_path)
