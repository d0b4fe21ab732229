"""What verification must see, down to which size, and what it must say of what it did not see."""

import json
import shutil

import pytest
import torch
import transformers
import zoo
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers.cache_utils import DynamicLayer

from compress.errors import VerifyError
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe
from compress.surgery import rewrite as writing
from compress.surgery.claims import masked as verifying
from compress.surgery.verify.noise import Reordered, apart

QUICK = Options(evaluate=False)
CHANNELS = "{prune: channels, by: magnitude, remove: 50%}"
HEADS = "{prune: heads, by: magnitude, remove: 50%}"


@pytest.fixture
def llama(tmp_path):
    zoo.save("llama", tmp_path / "in")
    return tmp_path / "in"


def said(folder, step=CHANNELS):
    """What verification says of a step on the model in `folder`."""
    recipe = parse_recipe(f"calibrate: {{data: random, samples: 4, length: 16}}\nsteps:\n- {step}\n")
    out = folder.parent / "out"
    shutil.rmtree(out, ignore_errors=True)
    (note,) = (note for note in run(recipe, folder, out, QUICK)["notes"] if "verified" in note)
    return note


def rebuilt(folder, cls, config, **numbers):
    """A random model, saved."""
    torch.manual_seed(0)
    getattr(transformers, cls)(getattr(transformers, config)(**numbers)).save_pretrained(folder)
    return folder


def plant(monkeypatch, spoil):
    """What is written is spoiled before it is verified."""

    def wrong(source, edit, folder):
        rewrite(source, edit, folder)
        spoil(folder)

    rewrite = writing.rewrite
    monkeypatch.setattr(writing, "rewrite", wrong)


def scale_logits(error):
    """The written config divides logits by a number that is `error` too large, in proportion."""

    def spoil(folder):
        config = json.loads((folder / "config.json").read_text())
        config["logits_scaling"] *= 1 + error
        (folder / "config.json").write_text(json.dumps(config))

    return spoil


def granite(folder, **changes):
    """A Llama that scales its logits."""
    numbers = zoo.ARCHITECTURES["llama"].arguments(tie_word_embeddings=False, logits_scaling=1.0, **changes)
    return rebuilt(folder, "GraniteForCausalLM", "GraniteConfig", **numbers)


@pytest.mark.parametrize(("error", "seen"), [(1.4e-3, True), (1e-4, True), (2e-5, True), (4e-6, False)])
def test_errors_are_seen_down_to_what_rounding_hides(error, seen, tmp_path, monkeypatch):
    folder = granite(tmp_path / "in")
    plant(monkeypatch, scale_logits(error))
    if seen:
        with pytest.raises(VerifyError, match=r"differs from the masked dense model's by .*at most 1\.0e-05"):
            said(folder)
    else:
        assert "output equal to the masked dense model's to 4e-06" in said(folder)


def deep(folder):
    """Sixty layers whose rounding grows from layer to layer."""
    return granite(folder, num_hidden_layers=60, initializer_range=0.3)


@pytest.mark.slow
def test_a_deep_model_is_allowed_its_rounding_and_no_more(tmp_path, monkeypatch):
    """The masked model's sums are in another order: some machines make the same of both models otherwise."""
    folder, masked = deep(tmp_path / "in"), verifying.masked_output

    def reordered(*given, **more):
        with Reordered():
            return masked(*given, **more)

    monkeypatch.setattr(verifying, "masked_output", reordered)
    note = said(folder, HEADS)
    assert "output equal to the masked dense model's" in note
    allowed = float(note.partition("float noise is up to ")[2].split(")")[0])  # it is the machine's own
    with monkeypatch.context() as patch, pytest.raises(VerifyError, match=r"at most 1\.0e-05 is right"):
        patch.setattr(verifying, "TIMES", 0)
        said(folder, HEADS)
    monkeypatch.setattr(verifying, "masked_output", masked)
    plant(monkeypatch, scale_logits(3 * allowed))
    with pytest.raises(VerifyError, match="differs from the masked dense model's"):
        said(folder, HEADS)


@pytest.mark.parametrize(
    "product",
    [
        lambda x: functional.linear(x, x[0]),
        lambda x: functional.linear(x, x[0], x[0, 0]),
        lambda x: x @ x.transpose(1, 2),
        lambda x: torch.baddbmm(x @ x.transpose(1, 2), x, x.transpose(1, 2)),
        lambda x: torch.einsum("bik,bjk->bij", x, x),
        lambda x: x[0] @ x[0, 0],
        lambda x: functional.conv1d(x.transpose(1, 2), x.transpose(1, 2)[:, :, :1]),
        lambda x: functional.scaled_dot_product_attention(x[None], x[None] / 8, x[None], is_causal=True),
    ],
    ids=["mm", "addmm", "bmm", "baddbmm", "einsum", "mv", "conv1d", "attention"],
)
def test_every_product_is_summed_in_another_order(product):
    x = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        once = product(x)
        with Reordered():
            again = product(x)
    assert 0 < apart(again, once) < 1e-5


@pytest.mark.slow
def test_a_state_that_kept_the_old_width_is_found(tmp_path):
    numbers = {"vocab_size": 96, "hidden_size": 64, "attention_hidden_size": 64, "num_hidden_layers": 2}
    folder = rebuilt(tmp_path / "in", "RwkvForCausalLM", "RwkvConfig", **numbers, context_length=64)
    with pytest.raises(VerifyError, match=r"decoding with a cache, the default, fails: The size of tensor"):
        said(folder)
    assert (tmp_path / "out.partial").exists()


def forget(monkeypatch, heads):
    """The cache of models with one of so many groups of heads forgets what was before."""
    plain = DynamicLayer.update

    def update(self, keys, values, *args, **kwargs):
        every = plain(self, keys, values, *args, **kwargs)
        if keys.shape[1] in heads:
            every[1][:, :, : -keys.shape[2]] = 0
        return every

    monkeypatch.setattr(DynamicLayer, "update", update)


@pytest.mark.slow
def test_a_cache_that_forgets_is_found(llama, monkeypatch):
    forget(monkeypatch, heads={1})
    with pytest.raises(VerifyError, match="decoding with a cache differs from the forward without"):
        said(llama, HEADS)


@pytest.mark.slow
def test_but_not_blamed_on_pruning_where_the_input_forgets_too(llama, monkeypatch):
    forget(monkeypatch, heads={1, 2})
    assert "decoding with a cache differs from the forward without by" in (note := said(llama, HEADS))
    assert "and the input's does by" in note


@pytest.mark.slow
def test_an_input_that_cannot_decode_is_no_reason_to_refuse(llama, monkeypatch):
    def broken(self, *args, **kwargs):
        raise NotImplementedError("no cache here")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate", broken)
    assert "decoding with a cache was not checked: it fails for the input too (no cache here)" in said(llama)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gemma2", "t5"])
def test_a_model_too_large_to_hold_is_read_for_every_check(name, tmp_path, monkeypatch):
    zoo.save(name, tmp_path / "in")
    held = said(tmp_path / "in")
    assert "4 tokens decoded with a cache agree to" in held
    monkeypatch.setattr(verifying, "HELD", 0)
    assert said(tmp_path / "in") == held


def test_a_model_that_does_not_generate_is_not_decoded(tmp_path):
    zoo.save("bert", tmp_path / "in")
    assert "decod" not in said(tmp_path / "in")


@pytest.mark.slow
def test_a_check_without_power_says_so(llama):
    assert "no power" not in said(llama)
    file = llama / "model.safetensors"
    silent = {name: tensor * ("down_proj" not in name) for name, tensor in load_file(file).items()}
    save_file(silent, file, {"format": "pt"})
    assert "but removing these changes the output by only 0e+00, so the check has no power" in said(llama)


def test_what_was_not_compared_is_not_called_equal(llama):
    note = said(llama, "{prune: hidden, by: magnitude, remove: 25%}")
    assert "shapes and finite output only; that it computes what it should was not checked" in note
    assert "4 tokens decoded with a cache agree to" in note


def test_more_zeros_than_asked_are_found(llama, monkeypatch):
    def spoil(folder):
        file = folder / "model.safetensors"
        tensors = load_file(file)
        tensors["model.layers.1.mlp.up_proj.weight"].zero_()
        save_file(tensors, file, {"format": "pt"})

    plant(monkeypatch, spoil)
    with pytest.raises(VerifyError, match=r"up_proj\.weight: 100\.0% of its weights are zero, not 50\.0%"):
        said(llama, "{prune: weights, by: magnitude, remove: 50%}")


def test_updated_weights_are_not_called_the_inputs(llama):
    assert "not checked" in said(llama, "{prune: weights, by: sparsegpt, remove: 50%}")
    assert "not checked" not in said(llama, "{prune: weights, by: wanda, remove: 50%}")


def test_infinities_in_the_same_places_are_no_difference():
    dense = torch.tensor([1.0, float("-inf"), 4.0])
    assert apart(torch.tensor([1.0, float("-inf"), 3.0]), dense) == pytest.approx(0.25)
    assert apart(torch.tensor([1.0, 0.0, 4.0]), dense) == float("inf")
    assert not apart(torch.tensor([1.0, float("nan"), 4.0]), dense) <= 1
