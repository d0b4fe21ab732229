"""The streamed forward is the model's own forward."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch
import transformers
import zoo

from compress.checkpoint.open import open_checkpoint
from compress.model.weights import Weights, runnable_model
from compress.stream.stream import Stream, StreamCallbacks


def prepared(name, folder, **changes):
    checkpoint = zoo.save(name, folder, **changes)
    model = runnable_model(checkpoint)
    return SimpleNamespace(model=model, weights=Weights(checkpoint, model), blocks=zoo.graph(name).blocks)


@pytest.mark.parametrize("large", [0, 10**9], ids=["every module streamed", "only blocks streamed"])
@pytest.mark.parametrize("name", zoo.MODELS)
def test_outputs_are_those_of_from_pretrained(name, large, tmp_path):
    given, batches = prepared(name, tmp_path), zoo.batches(name)
    outputs, visits = [], []
    callbacks = StreamCallbacks(
        visit=lambda block, *_: visits.append(block), end=lambda output, _: outputs.append(output[0])
    )
    Stream(given.model, given.weights, given.blocks, callbacks, large=large).run(batches)
    reference = zoo.stock(name, tmp_path)
    with torch.no_grad():
        for batch, output in zip(batches, outputs, strict=True):
            expected = reference(**{k: v for k, v in batch.items() if k != "labels"})[0]
            assert (output - expected).abs().max() <= 1e-5
    assert all(parameter.is_meta for parameter in given.model.parameters())
    # Block-major: a block is done for all batches before the next one begins; ALBERT's runs three times.
    once = [block for block in given.blocks for _ in batches]
    assert visits == (once * 3 if name == "albert" else once)


def test_one_block_in_memory_at_a_time(tmp_path):
    given = prepared("llama", tmp_path)
    seen = []

    def visit(block, *_):
        real = {name for name, p in given.model.named_parameters() if not p.is_meta}
        seen.append((block, {name for name in real if not name.startswith(block)}))

    Stream(given.model, given.weights, given.blocks, StreamCallbacks(visit=visit), large=0).run(zoo.batches("llama"))
    assert len(seen) == 9 and all(not others for _, others in seen)


def test_logits_are_not_computed_unless_asked_for(tmp_path):
    given = prepared("llama", tmp_path)
    ran = []
    given.model.lm_head.register_forward_hook(lambda *_: ran.append(1))
    Stream(given.model, given.weights, given.blocks, StreamCallbacks()).run(zoo.batches("llama"))
    assert not ran
    Stream(given.model, given.weights, given.blocks, StreamCallbacks(end=lambda *_: None)).run(zoo.batches("llama"))
    assert len(ran) == 3


def test_a_changed_block_shapes_what_flows_on(tmp_path):
    given, batches = prepared("llama", tmp_path), zoo.batches("llama")
    outputs, left = [], []

    def change(block, module):
        assert left[-1] == block
        module.mlp.down_proj.weight[:, :5] = 0

    callbacks = StreamCallbacks(leave=left.append, change=change, end=lambda output, _: outputs.append(output[0]))
    Stream(given.model, given.weights, given.blocks, callbacks).run(batches)
    reference = zoo.stock("llama", tmp_path)
    for layer in reference.model.layers:
        layer.mlp.down_proj.weight.data[:, :5] = 0
    for batch, output in zip(batches, outputs, strict=True):
        assert torch.allclose(output, reference(**batch)[0], atol=1e-5)


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["model.norm", "model.layers.1", "model"])
def test_errors_leave_no_thread_and_no_weights_behind(error, where, tmp_path):
    given = prepared("llama", tmp_path)
    before = threading.active_count()

    def fail(*_):
        raise error

    hook = given.model.get_submodule(where).register_forward_hook(fail)
    with pytest.raises(type(error)):
        Stream(given.model, given.weights, given.blocks, StreamCallbacks()).run(zoo.batches("llama"))
    assert threading.active_count() == before
    assert all(parameter.is_meta for parameter in given.model.parameters())
    hook.remove()
    outputs = []
    callbacks = StreamCallbacks(end=lambda output, _: outputs.append(output))
    Stream(given.model, given.weights, given.blocks, callbacks).run(zoo.batches("llama"))
    assert len(outputs) == 3


def test_blocks_that_are_single_layers_come_and_go_too(tmp_path):
    """XLM keeps attentions, norms and MLPs in lists of their own."""
    numbers = {"vocab_size": 96, "emb_dim": 32, "n_layers": 2, "n_heads": 4}
    torch.manual_seed(0)
    stock = transformers.XLMModel(transformers.XLMConfig(**numbers)).eval()
    stock.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    model = runnable_model(checkpoint)
    blocks = [f"{stack}.{i}" for i in range(2) for stack in ("attentions", "layer_norm1", "ffns", "layer_norm2")]
    outputs = []
    callbacks = StreamCallbacks(end=lambda output, _: outputs.append(output[0]))
    Stream(model, Weights(checkpoint, model), blocks, callbacks).run(zoo.batches("llama")[:1])
    with torch.no_grad():
        assert torch.equal(outputs[0], stock(**zoo.batches("llama")[0])[0])
