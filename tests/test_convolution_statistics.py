"""What convolutions are given, and their repair: against windows cut out by torch and against the solution by SVD."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from compress.calibrate.collect import collect
from compress.calibrate.columns import flat_matrix, outputs_of, rows_of
from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError
from compress.model.model import Model
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe
from compress.registry import criteria
from compress.score.score import needed, score

SHAPE: dict[str, Any] = {
    "embedding_size": 6,
    "hidden_sizes": [8, 16],
    "depths": [2, 2],
    "image_size": 16,
    "num_labels": 5,
}
MODELS = {
    "resnet": (tf.ResNetForImageClassification, tf.ResNetConfig(**SHAPE, layer_type="basic")),
    "regnet": (tf.RegNetForImageClassification, tf.RegNetConfig(**SHAPE, groups_width=4, layer_type="x")),
}


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Saves a random model of one of MODELS; no gain, bias, mean or variance is constant."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))

    def save(name: str) -> Any:
        torch.manual_seed(0)
        model = MODELS[name][0](MODELS[name][1]).eval()
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.2 * torch.randn_like(tensor).abs()
        model.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.Conv2d, {"stride": 2, "padding": 1}),
        (nn.Conv2d, {"groups": 2, "dilation": 2, "padding": "same", "padding_mode": "reflect"}),
        (nn.Conv2d, {"groups": 4}),
        (nn.Conv1d, {"stride": 3, "padding": 2, "padding_mode": "circular"}),
        (nn.Conv3d, {"stride": (1, 2, 1), "padding": (0, 1, 2)}),
    ],
)
def test_windows_times_the_matrix_are_what_the_convolution_gives(kind, options, monkeypatch):
    monkeypatch.setattr("compress.calibrate.columns.PIECE", 60)  # several pieces, of a sample too
    places = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}[kind]
    layer, given = kind(4, 8, 3, bias=False, **options), torch.randn(3, 4, *(9,) * places)
    pieces = list(rows_of(layer, given))
    assert len(pieces) > 1
    rows, matrix = torch.cat(pieces, -2), flat_matrix(layer)
    if layer.groups > 1:
        found = torch.cat([x @ w.T for x, w in zip(rows, matrix.chunk(layer.groups), strict=True)], 1)
    else:
        found = rows @ matrix.T
    torch.testing.assert_close(found, outputs_of(layer, layer(given)), rtol=1e-4, atol=1e-5)


def test_a_transposed_convolution_multiplies_each_position():
    layer, given = nn.ConvTranspose2d(4, 3, 2, stride=2, bias=False), torch.randn(2, 4, 5, 5)
    (rows,) = rows_of(layer, given)
    columns = (rows @ layer.weight.flatten(1)).view(2, 25, 12).transpose(1, 2)
    torch.testing.assert_close(F.fold(columns, 10, 2, stride=2), layer(given), rtol=1e-4, atol=1e-5)


def seen(folder: Any, module: str, batches: list[dict[str, Tensor]]) -> Tensor:
    """All that a module of the saved model is given."""
    model, found = tf.AutoModelForImageClassification.from_pretrained(folder).eval(), []
    model.get_submodule(module).register_forward_pre_hook(lambda module, args: found.append(args[0]))
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    return torch.cat(found)


def windows(x: Tensor, **options: Any) -> Tensor:
    """`[windows, channels × kernel]` by torch's own cutting."""
    return F.unfold(x, 3, **options).transpose(1, 2).flatten(0, 1)


def test_statistics_are_those_of_the_windows(saved):
    source = Model.of(open_checkpoint(saved("regnet")))
    batches = [{"pixel_values": torch.randn(2, 3, 16, 16)} for _ in range(2)]
    stem, grouped = "regnet.embedder.embedder", "regnet.encoder.stages.1.layers.1.layer.1"
    names = [f"{module}.convolution.weight" for module in (stem, grouped)]
    needs = {name: set(names) for name in ("input_mean", "input_variance", "input_norm", "input_gram")}
    found = collect(source.checkpoint, source.graph, needs, batches)
    for module, name in zip((stem, grouped), names, strict=True):
        x = seen(source.checkpoint.folder, module, batches)
        rows = windows(x, padding=1, stride=2 if module == stem else 1)
        parts = [rows] if module == stem else rows.chunk(4, 1)
        for group, part in enumerate(parts):
            mean, variance, norm, gram = (
                found[key][name] if module == stem else found[key][name][group]
                for key in ("input_mean", "input_variance", "input_norm", "input_gram")
            )
            torch.testing.assert_close(mean, part.mean(0), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(variance, part.var(0, correction=0), rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(norm, (part.square().sum(0) / 4).sqrt(), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(gram, part.T @ part / len(part), rtol=1e-4, atol=1e-4)


def test_curvature_of_a_grouped_convolution_goes_group_by_group(saved):
    source = Model.of(open_checkpoint(saved("regnet")))
    batch = {"pixel_values": torch.randn(3, 3, 16, 16), "labels": torch.tensor([0, 3, 1])}
    module = "regnet.encoder.stages.1.layers.1.layer.1.convolution"
    name = f"{module}.weight"
    (family,) = (
        f for f in source.graph.of_kind("channels") if any(m.tensor == name and m.role == "in" for m in f.members)
    )
    entry = criteria.get("curvature")
    stats = collect(source.checkpoint, source.graph, needed(source.graph, [family], entry), [batch])
    stock = tf.RegNetForImageClassification.from_pretrained(source.checkpoint.folder).eval()
    outputs: list[Tensor] = []
    stock.get_submodule(module).register_forward_hook(lambda module, args, output: outputs.append(output))
    (g,) = torch.autograd.grad(stock(**batch).loss, outputs)
    rows = g.movedim(1, -1).flatten(0, -2)
    rows = rows * len(rows)
    weight, variance = source.weights.read(name).flatten(1), stats["input_variance"][name]
    wanted = []
    for group, part in enumerate(rows.chunk(4, 1)):
        own = weight.chunk(4)[group]
        grown = 0.5 * variance[group] * torch.einsum("oi,op,pi->i", own, part.T @ part / len(part), own)
        wanted.append(grown.unflatten(0, (-1, 9)).mean(1))
    found = score(source.graph, [family], entry, stats, source.weights.read)[family.name]
    units = torch.stack(wanted).mean(0)  # a unit is the same place in every group
    np.testing.assert_allclose(found, units, rtol=1e-3)


def test_a_block_turns_images_by_their_channels(saved):
    """A stage's first layer, which gives another shape than it takes, leaves nothing as it was."""
    source = Model.of(open_checkpoint(saved("resnet")))
    batches = [{"pixel_values": torch.randn(2, 3, 16, 16)} for _ in range(2)]
    blocks = [f"resnet.encoder.stages.1.layers.{i}" for i in range(2)]
    assert set(blocks) <= set(source.graph.blocks)
    found = collect(source.checkpoint, source.graph, {"block_cosine": set(blocks)}, batches)["block_cosine"]
    before, after = (seen(source.checkpoint.folder, name, batches) for name in (blocks[1], "resnet.pooler"))
    assert found[blocks[0]] == 0
    torch.testing.assert_close(
        found[blocks[1]], torch.cosine_similarity(before, after, dim=1).mean(), rtol=1e-4, atol=1e-5
    )


def cut(folder: Any, out: Any, repair: str) -> tuple[np.ndarray, dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Channels inside a block go: (which stay, the tensors before and after, windows of what reads them)."""
    text = f"prune: channels, by: magnitude, remove: 40%, skip: ['*embedder*'], repair: {repair}"
    recipe = parse_recipe(f"calibrate: {{data: random, samples: 6, batch: 3}}\nsteps:\n- {{{text}}}\n")
    report: Any = run(recipe, folder, out, Options(evaluate=False))
    assert any("equal to the masked dense model's" in note for note in report["notes"])
    source = Model.of(open_checkpoint(folder))
    batches, _ = source.inputs.batches(recipe.calibrate, source.checkpoint, recipe.seed)
    x = seen(folder, "resnet.encoder.stages.1.layers.1.layer.1", batches)
    before, after = (load_file(path / "model.safetensors") for path in (folder, out))
    first = "resnet.encoder.stages.1.layers.1.layer.0.convolution.weight"
    kept = np.array([any(torch.equal(row, own) for own in after[first]) for row in before[first]])
    return kept, before, after, windows(x, padding=1)


LAST = "resnet.encoder.stages.1.layers.1.layer.1"


def test_least_squares_on_windows_is_the_solution_by_svd(saved, tmp_path):
    kept, before, after, rows = cut(saved("resnet"), tmp_path / "out", "{least_squares: {ridge: 0}}")
    columns = torch.from_numpy(np.repeat(kept, 9))
    weight = before[f"{LAST}.convolution.weight"].flatten(1)
    target = (rows @ weight.T - before[f"{LAST}.normalization.running_mean"]).double()
    design = torch.cat([rows[:, columns], torch.ones(len(rows), 1)], 1).double()
    fitted = design @ torch.linalg.lstsq(design, target).solution
    made = rows[:, columns] @ after[f"{LAST}.convolution.weight"].flatten(1).T
    made = made - after[f"{LAST}.normalization.running_mean"]
    torch.testing.assert_close(made.double(), fitted, rtol=1e-2, atol=1e-2)
    masked = rows[:, columns] @ weight[:, columns].T - before[f"{LAST}.normalization.running_mean"]
    assert (made - target).square().mean() < 0.8 * (masked - target).square().mean()


def test_the_mean_of_what_goes_is_taken_off_the_batch_norms_mean(saved, tmp_path):
    kept, before, after, rows = cut(saved("resnet"), tmp_path / "out", "bias")
    gone = torch.from_numpy(np.repeat(~kept, 9))
    lost = before[f"{LAST}.convolution.weight"].flatten(1)[:, gone] @ rows[:, gone].mean(0)
    mean = f"{LAST}.normalization.running_mean"
    torch.testing.assert_close(after[mean], before[mean] - lost, rtol=1e-3, atol=1e-4)
    assert "bias" not in "".join(after.keys() - before.keys())


def test_batch_norms_gains_rank_channels(saved):
    source = Model.of(open_checkpoint(saved("resnet")))
    entry, read = criteria.get("batch_norm_scale"), source.weights.read
    families = source.graph.of_kind("channels", "hidden")
    found = score(source.graph, families, entry, {}, read)
    inner = "resnet.encoder.stages.1.layers.1.layer.0"
    (family,) = (f for f in families if f"{inner}.convolution.weight" in [m.tensor for m in f.members] and f.size == 16
                 and f.kind == "channels")  # fmt: skip
    np.testing.assert_allclose(found[family.name], read(f"{inner}.normalization.weight").abs(), rtol=1e-6)
    stream = next(f for f in families if f.kind == "hidden" and f.size == 16)
    norms = [m.tensor for m in stream.members if m.tensor.endswith("normalization.weight")]
    assert len(norms) == 3  # of two blocks and the shortcut
    np.testing.assert_allclose(found[stream.name], sum(read(name).abs() for name in norms), rtol=1e-6)


def test_a_family_without_a_batch_norm_has_no_gains(tmp_path):
    torch.manual_seed(0)
    tf.ViTModel(tf.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                             image_size=8, patch_size=4)).save_pretrained(tmp_path / "vit")  # fmt: skip
    source = Model.of(open_checkpoint(tmp_path / "vit"))
    with pytest.raises(InputError, match="no batch norm with a gain runs along it"):
        score(source.graph, source.graph.of_kind("channels"), criteria.get("batch_norm_scale"), {}, source.weights.read)
