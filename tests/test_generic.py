"""Widths that differ by layer: the folder loads in stock transformers and computes the masked dense model."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import transformers as tf
from pruned import CASES, cut, logits, masks
from safetensors.torch import save_file

from compress.surgery.generic import auto_class, generic_plan
from compress.surgery.native import find_native

WIDTHS = ((0.75, 80), (0.5, 96), (1.0, None))  # share of the heads, channels kept, by layer; the last one stays whole


def by_layer(name, case, layer):
    heads, channels = WIDTHS[layer]
    if name == "t5":  # one table of positions serves every layer of a stack
        heads = 0.75
    size = len(masks(case, 1, 1)["heads"])
    seed = 7 if name == "t5" else layer
    result = masks(case, int(heads * size), channels or case.channels, seed=seed)
    return result


def write(folder, case, plan, state, model):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(plan.config))
    tied = {n for n in model.all_tied_weights_keys}
    save_file({k: v for k, v in state.items() if k not in tied}, folder / "model.safetensors", {"format": "pt"})
    for file in plan.files:
        shutil.copy(file, folder / file.name)


def make(name, folder):
    case = CASES[name]
    dense = case.model()
    state = cut(case, dense, lambda layer: by_layer(name, case, layer))
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    plan = generic_plan(case.config(), case.cls, shapes)
    write(folder, case, plan, state, dense)
    return case, dense, shapes, plan


@pytest.mark.parametrize("name", CASES)
def test_layers_of_different_width_equal_the_masked_dense_model(name, tmp_path):
    case, dense, shapes, plan = make(name, tmp_path / "a")
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
