"""Many variants in one pass of the model give what each gives in a forward of its own."""

from contextlib import contextmanager

import pytest
import torch
import zoo

from compress.errors import ModelError
from compress.model.weights import Weights, runnable_model
from compress.stream.stream import Stream, StreamCallbacks
from compress.stream.variants import Variant, Variants


@contextmanager
def halved(block, module):
    """All matrices of a block halved."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.mul_(0.5)
        yield
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.mul_(2)


def alone(checkpoint, blocks, batches, changed=(), gone=()):
    """The outputs of a model of its own, changed for good."""
    model = runnable_model(checkpoint)
    weights, outputs = Weights(checkpoint, model), []
    weights.load("")
    for block in changed:
        halved(block, model.get_submodule(block)).__enter__()
    for block in gone:
        model.get_submodule(block).forward = lambda hidden_states, *args, **kwargs: hidden_states
    callbacks = StreamCallbacks(end=lambda output, batch: outputs.append(output[0].clone()))
    Stream(model, weights, blocks, callbacks).run(batches)
    return outputs


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])  # T5 has two stacks
def test_variants_are_what_they_are_alone(name, tmp_path):
    checkpoint, batches = zoo.save(name, tmp_path), zoo.batches(name)
    blocks, model = zoo.graph(name).blocks, runnable_model(checkpoint)
    wanted = [((blocks[-1],), ()), ((blocks[0], blocks[-1]), ()), ((), ())]
    wanted += [((), (blocks[1],))] if name == "llama" else []
    found: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    left: list[str] = []
    stream = Variants(
        model,
        Weights(checkpoint, model),
        blocks,
        variants=[Variant(frozenset(changed), halved, frozenset(gone)) for changed, gone in wanted],
        compared=lambda number, output, other, batch: found.setdefault(number, []).append(
            (output[0].clone(), other[0].clone())
        ),
        leave=left.append,
    )
    stream.run(batches)
    dense = alone(checkpoint, blocks, batches)
    for number, (changed, gone) in enumerate(wanted):
        for (one, other), whole, own in zip(
            found[number], dense, alone(checkpoint, blocks, batches, changed, gone), strict=True
        ):
            assert one.equal(whole)
            torch.testing.assert_close(other, own, rtol=1e-5, atol=1e-6)
            assert other.equal(whole) == (not changed and not gone)
    assert left == list(blocks)
    assert not stream._outputs


def counted(ran, block, forward):
    def run(*args, **kwargs):
        ran.append(block)
        return forward(*args, **kwargs)

    return run


def test_what_lies_before_the_first_change_runs_once(tmp_path):
    checkpoint, ran = zoo.save("llama", tmp_path), []
    model, blocks = runnable_model(checkpoint), zoo.graph("llama").blocks
    for block in blocks:
        module = model.get_submodule(block)
        module.forward = counted(ran, block, module.forward)
    last = Variant(frozenset(blocks[-1:]), halved)
    Variants(model, Weights(checkpoint, model), blocks, variants=[last, last], compared=lambda *given: None).run(
        zoo.batches("llama")[:1]
    )
    assert ran == [*blocks, *blocks[-1:] * 2]


def test_a_block_that_gives_more_than_hidden_states_cannot_be_left_out(tmp_path):
    checkpoint = zoo.save("t5", tmp_path)
    model, blocks = runnable_model(checkpoint), zoo.graph("t5").blocks
    gone = Variant(frozenset(), halved, frozenset(blocks[:1]))
    stream = Variants(model, Weights(checkpoint, model), blocks, variants=[gone], compared=lambda *given: None)
    with pytest.raises(ModelError, match="cannot be tried out"):
        stream.run(zoo.batches("t5")[:1])
