"""A forward that starts at a recorded block is the whole forward, bit for bit."""

from types import SimpleNamespace

import pytest
import torch
import zoo

from compress.errors import InputError
from compress.model.weights import Weights, runnable_model
from compress.stream.replay import Recorder, Recording, Replay
from compress.stream.stream import Stream, StreamCallbacks


class Run:
    """A model, the outputs of its last run and the blocks that ran in it."""

    def __init__(self, name, folder):
        checkpoint = zoo.save(name, folder)
        self.model = runnable_model(checkpoint)
        self.weights, self.blocks = Weights(checkpoint, self.model), zoo.graph(name).blocks
        self.batches = zoo.batches(name)

    def __call__(self, kind=Stream, zeroed=(), batches=None, **options):
        """`zeroed` blocks lose some weights before they run."""
        outputs, ran = {}, []

        def change(block, module):
            if block in zeroed:
                for parameter in module.parameters():
                    if parameter.dim() == 2:
                        parameter[:, :3] = 0

        callbacks = StreamCallbacks(
            visit=lambda block, *_: ran.append(block),
            change=change if zeroed else None,
            end=lambda output, batch: outputs.setdefault(len(outputs), output[0].clone()),
        )
        kind(self.model, self.weights, self.blocks, callbacks, **options).run(batches or self.batches)
        return SimpleNamespace(outputs=list(outputs.values()), ran=ran)


def same(found, wanted):
    return all(torch.equal(a, b) for a, b in zip(found.outputs, wanted.outputs, strict=True))


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "t5"])  # T5 has two stacks
def test_from_any_block_on_the_output_is_the_whole_forward_s(name, where, tmp_path):
    run, recording = Run(name, tmp_path / "model"), Recording(tmp_path / "recording" if where == "disk" else None)
    whole = run(Recorder, recording=recording)
    assert same(run(), whole)
    for i, start in enumerate(run.blocks):
        replayed = run(Replay, recording=recording, start=start)
        assert same(replayed, whole)
        assert replayed.ran == [block for block in run.blocks[i:] for _ in run.batches]  # and no others


def test_later_blocks_may_have_other_weights(tmp_path):
    run, recording = Run("llama", tmp_path), Recording()
    dense = run(Recorder, recording=recording)
    changed = run(zeroed=run.blocks[1:])
    assert not same(changed, dense)
    for _ in range(2):  # what is recorded stays what it was
        assert same(run(Replay, zeroed=run.blocks[1:], recording=recording, start=run.blocks[1]), changed)
    # A block's change is recorded too.
    first = run(Recorder, zeroed=run.blocks[:1], recording=(pruned := Recording()))
    assert same(run(Replay, recording=pruned, start=run.blocks[1]), first)


def test_a_block_that_comes_again_is_replayed_from_its_first_visit(tmp_path):
    run, recording = Run("albert", tmp_path), Recording()
    whole = run(Recorder, recording=recording)
    assert recording.visits[0] == list(run.blocks) * 3
    assert same(run(Replay, recording=recording, start=run.blocks[0]), whole)


def test_the_blocks_before_are_not_loaded(tmp_path):
    run, recording = Run("llama", tmp_path), Recording()
    run(Recorder, recording=recording)
    loaded, load = [], run.weights.load_names
    run.weights.load_names = lambda names, *more: load(loaded.extend(kept := list(names)) or kept, *more)
    run(Replay, recording=recording, start=run.blocks[2])
    assert any(name.startswith(run.blocks[2]) for name in loaded)
    assert not any(name.startswith(tuple(run.blocks[:2])) for name in loaded)


def test_what_was_not_recorded_is_refused(tmp_path):
    run, recording = Run("llama", tmp_path), Recording()
    run(Recorder, recording=recording)
    with pytest.raises(InputError, match="the recording is of other batches"):
        run(Replay, batches=run.batches[::-1][:2], recording=recording, start=run.blocks[1])
    with pytest.raises(InputError, match=r"model\.layers\.7: was not visited .* it has model\.layers\.0"):
        run(Replay, recording=recording, start="model.layers.7")
    inside = StreamCallbacks(inside={run.blocks[0]: frozenset({f"{run.blocks[0]}.mlp.up_proj"})})
    with pytest.raises(ValueError, match="nothing that could be recorded"):
        Recorder(run.model, run.weights, run.blocks, inside, recording=recording)
