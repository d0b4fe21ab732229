"""Tables that no file holds: the class computes them, and nothing of them may be removed."""

import pytest
import torch
import transformers

from compress.checkpoint.open import open_checkpoint
from compress.errors import ModelError
from compress.model.build import runnable_model
from compress.model.model import Model
from compress.model.unstored import check_computed
from compress.model.weights import Weights

TABLES = [f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder")]
SIZES = {
    "vocab_size": 96,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}


@pytest.fixture
def marian(tmp_path):
    torch.manual_seed(0)
    model = transformers.MarianMTModel(transformers.MarianConfig(**SIZES)).eval()
    model.save_pretrained(tmp_path)
    return model, open_checkpoint(tmp_path)


def test_they_are_computed_as_the_class_does(marian):
    model, checkpoint = marian
    assert not set(TABLES) & set(checkpoint.tensors)
    runnable = runnable_model(checkpoint)
    Weights(checkpoint, runnable).load("")
    for name in TABLES:
        assert runnable.get_buffer(name).equal(model.get_parameter(name))
    ids = torch.arange(1, 13)[None]
    given = {"input_ids": ids, "decoder_input_ids": ids}
    assert torch.equal(runnable(**given).logits, model(**given).logits)


def test_the_width_that_indexes_them_stays(marian):
    graph = Model.of(marian[1]).graph
    assert not set(TABLES) & set(graph.layouts)
    assert "embed_positions.weight is indexed by it" in graph.families["hidden"].pinned
    assert len(graph.of_kind("heads")) == 3 and len(graph.of_kind("channels")) == 2


def test_what_is_learnt_is_missing_whatever_the_class_says(marian, tmp_path):
    _, checkpoint = marian
    config = checkpoint.folder / "config.json"
    config.write_text(config.read_text().replace('"tie_word_embeddings": true', '"tie_word_embeddings": false'))
    with pytest.raises(ModelError, match="which is neither stored nor tied"):
        Model.of(open_checkpoint(checkpoint.folder))


def test_what_would_be_drawn_at_random_is_refused(marian):
    model, _ = marian
    with torch.no_grad():
        holder = torch.nn.Linear(2, 2)
        weight = holder._parameters.pop("weight")
        holder.register_buffer("weight", weight.data, persistent=False)
    model.model.drawn = holder
    with pytest.raises(ModelError, match=r"model\.drawn\.weight is in no file, and MarianMTModel would draw it"):
        check_computed(model, ["model.drawn.weight"])
