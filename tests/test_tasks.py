"""Which task a model has; its loss, its distance and its metric, each against a formula or transformers' own number."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import zoo
from torch.nn import functional
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    CLIPConfig,
    CLIPModel,
    CohereConfig,
    CohereForCausalLM,
    ResNetConfig,
    ResNetModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    T5Config,
    T5EncoderModel,
    T5Model,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
    YolosConfig,
    YolosForObjectDetection,
)

from compress.errors import InputError, ModelError
from compress.evaluate.read import quality_of
from compress.metrics.boxes import overlap
from compress.registry import tasks
from compress.tasks.choose import task_of
from compress.tasks.kind import Task

SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
VIT = ViTConfig(**SMALL, image_size=16, patch_size=4, num_labels=5)
SEGFORMER = SegformerConfig(
    hidden_sizes=[8] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8, num_labels=3
)
YOLOS = YolosConfig(**SMALL, image_size=[16, 16], patch_size=4, num_detection_tokens=3, num_labels=4)
T5 = T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, vocab_size=61, decoder_start_token_id=0)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("llama", "next_token"),
        ("gpt2", "next_token"),
        ("bert", "masked_token"),
        ("albert", "masked_token"),
        ("t5", "sequence_to_sequence"),
    ],
)
def test_a_loss_is_transformers_own_and_quality_its_exponential(name, task, tmp_path):
    zoo.save(name, tmp_path)
    model = zoo.stock(name, tmp_path)
    found = task_of(model)
    assert found.name == task
    (batch,) = zoo.batches(name, (3,))
    labels = batch.get("labels", batch["input_ids"]).clone()
    labels[0, 5] = -100
    given = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        expected = model(**given, labels=labels).loss.item()
        some = found.loss(model(**given), {**given, "labels": labels}).item()
        whole = found.loss(model(**given), batch).item()
        assert some == pytest.approx(expected, rel=1e-6) and whole != some
        assert whole == pytest.approx(model(**{"labels": batch["input_ids"], **batch}).loss.item(), rel=1e-6)
    assert quality_of(model, [batch]).main.value == pytest.approx(torch.tensor(whole).exp().item(), rel=1e-5)


def test_a_number_that_scales_logits_makes_no_pair_of_encoders():
    config = CohereConfig(**SMALL, vocab_size=40, num_key_value_heads=2)
    assert task_of(CohereForCausalLM(config)).name == "next_token"
    small = {"text_config": {**SMALL, "vocab_size": 40}, "vision_config": {**SMALL, "image_size": 16, "patch_size": 8}}
    assert task_of(CLIPModel(CLIPConfig(**small))).name == "contrastive"


def test_heads_decide_between_classes_and_embeddings():
    bert = BertConfig(**SMALL, vocab_size=61)
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    named = [(ViTModel, VIT), (T5Model, T5), (T5EncoderModel, T5), (BertForTokenClassification, bert)]
    named += [(ResNetModel, resnet), (ViTForImageClassification, VIT), (BertForSequenceClassification, bert)]
    with torch.device("meta"):
        found = [task_of(cls(config)) for cls, config in named]
    assert [task.name for task in found] == ["embedding"] * 5 + ["classes"] * 2
    assert [task.hub_task for task in found[4:]] == [
        "feature-extraction",
        "image-classification",
        "text-classification",
    ]


def test_the_distance_of_logits_is_the_kl_divergence(pixels, tmp_path):
    zoo.save("llama", tmp_path)
    llama, vit = task_of(zoo.stock("llama", tmp_path)), ViTForImageClassification(VIT).eval()
    one, other = (SimpleNamespace(logits=torch.randn(2, 7, 11)) for _ in range(2))
    p, q = one.logits.double().softmax(-1), other.logits.double().softmax(-1)
    found = llama.distance(one, other)
    torch.testing.assert_close(found.double(), (p * (p / q).log()).sum(-1), rtol=1e-5, atol=1e-6)
    assert (llama.distance(other, one) - found).abs().max() > 1e-3  # it is not the same the other way round
    assert llama.distance(one, one).abs().max() < 1e-6
    with torch.no_grad():
        output = vit(pixel_values=pixels)
    flat = SimpleNamespace(logits=torch.zeros(6, 5))
    entropy = -(output.logits.softmax(-1) * output.logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(task_of(vit).distance(output, flat), torch.tensor(5.0).log() - entropy)


def test_the_distance_of_hidden_states_is_one_minus_their_cosine():
    task = task_of(ViTModel(VIT))
    one = torch.randn(2, 5, 8)
    turned = one.flip(-1).requires_grad_()
    found = task.distance(SimpleNamespace(last_hidden_state=one), SimpleNamespace(last_hidden_state=turned))
    norms = one.norm(dim=-1) * turned.norm(dim=-1)
    torch.testing.assert_close(found, 1 - (one * turned).sum(-1) / norms)
    found.sum().backward()
    assert turned.grad is not None and turned.grad.abs().sum() > 0
    narrow = SimpleNamespace(last_hidden_state=one[..., :6])
    with pytest.raises(ModelError, match="same width"):
        task.distance(SimpleNamespace(last_hidden_state=one), narrow)


def test_an_encoder_of_images_has_the_embedding_of_its_positions(pixels):
    torch.manual_seed(0)
    vit, other = ViTModel(VIT).eval(), ViTModel(VIT).eval()
    batches = [{"pixel_values": some} for some in pixels.split(4)]
    found = quality_of(other, batches, dense=vit)
    with torch.no_grad():
        one, two = (model(pixel_values=pixels).last_hidden_state.mean(1) for model in (vit, other))
    assert found.figures[0].value == pytest.approx(functional.cosine_similarity(one, two).mean().item(), rel=1e-5)
    assert found.main.name == "ranks" and found.record["similarity"]["length"] == 17
    resnet = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")).eval()
    with torch.no_grad():
        output = resnet(pixel_values=pixels)
    read = task_of(resnet).metric(batches[0]).read(output, batches[0])
    torch.testing.assert_close(read.values, output.last_hidden_state.mean((2, 3)))


def test_a_classifier_is_as_good_as_it_is_right(pixels):
    torch.manual_seed(0)
    model = ViTForImageClassification(VIT).eval()
    with torch.no_grad():
        logits = model(pixel_values=pixels).logits
    labels = logits.argmax(-1)
    labels[:2] = (labels[:2] + 1) % 5
    batch = {"pixel_values": pixels, "labels": labels}
    found = quality_of(model, [batch])
    assert (found.main.name, found.main.value, found.main.higher_is_better) == ("accuracy", pytest.approx(4 / 6), True)
    task = task_of(model)
    with torch.no_grad():
        expected = model(**batch).loss.item()
        assert task.loss(model(pixel_values=pixels), batch).item() == pytest.approx(expected)
        with pytest.raises(ModelError, match="without gradients"):
            task.loss(model(pixel_values=pixels), {"pixel_values": pixels})
    with pytest.raises(InputError, match=r"labels of shape \[6, 1\]"):
        quality_of(model, [{**batch, "labels": labels[:, None]}])


def test_a_classifier_is_compared_by_its_classes_with_labels_and_without(pixels):
    torch.manual_seed(0)
    dense, model = (ViTForImageClassification(VIT).eval() for _ in range(2))
    with torch.no_grad():
        one, two = (each(pixel_values=pixels).logits.argmax(-1) for each in (dense, model))
    alike = (one == two).double()
    alone = quality_of(model, [{"pixel_values": pixels}], dense=dense)
    assert (alone.main.name, alone.main.value) == ("agreement", pytest.approx(alike.mean().item()))
    error = (alike.std() / len(alike) ** 0.5).item()
    assert alone.changes["agreement"].high - alone.main.value == pytest.approx(2 * error)
    batches = [
        {"pixel_values": some, "labels": right} for some, right in zip(pixels.split(4), one.split(4), strict=True)
    ]
    told = quality_of(model, batches, dense=dense)
    assert {figure.name: (figure.value, figure.dense, figure.ranks) for figure in told.figures} == {
        "accuracy": (pytest.approx(alike.mean().item()), 1.0, True),
        "agreement": (pytest.approx(alike.mean().item()), 1.0, False),
    }
    assert quality_of(dense, batches, dense=dense).main.value == 1


def test_a_segmenter_is_right_at_places_that_count():
    task = task_of(SegformerForSemanticSegmentation(SEGFORMER))
    logits = torch.randn(2, 3, 4, 4)
    output = SimpleNamespace(logits=logits)
    labels = logits.argmax(1)
    labels[0, 0], labels[1, 3, 3] = -1, (labels[1, 3, 3] + 1) % 3
    batch = {"labels": labels}
    read = task.metric(batch).read(output, batch)
    assert task.metric(batch).quality(read).main.value == pytest.approx((1 + 15 / 16) / 2)
    other = SimpleNamespace(logits=logits.roll(1, 1))
    expected = (logits.softmax(1) * (logits.log_softmax(1) - other.logits.log_softmax(1))).sum(1)
    torch.testing.assert_close(task.distance(output, other), expected)
    wide = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    log_p = functional.interpolate(logits, (8, 8), mode="bilinear").log_softmax(1)
    picked = log_p.gather(1, wide.clamp(min=0)[:, None])[:, 0][wide >= 0]
    torch.testing.assert_close(task.loss(output, {"labels": wide}), -picked.mean())
    with pytest.raises(ModelError, match="without gradients"):
        task.loss(output, {})


@pytest.mark.parametrize("nothing", [1, 0])
def test_a_detector_is_as_good_as_it_finds_the_dense_models_boxes(nothing):
    """With a class for `nothing`, which excludes the others, and with a probability for each class."""
    model = YolosForObjectDetection(YOLOS)
    task = task_of(model)
    logits, boxes = torch.randn(2, 12, model.config.num_labels + nothing), torch.rand(2, 12, 4) / 4 + 0.3
    dense = SimpleNamespace(logits=logits, pred_boxes=boxes)
    turned = SimpleNamespace(logits=logits.flip(1), pred_boxes=boxes.flip(1))  # the same detections by other queries
    moved = SimpleNamespace(logits=logits, pred_boxes=torch.cat([boxes[:1], boxes[1:] + 2]))  # of one sample, away
    metric = task.metric({})

    def found(output):
        return metric.quality(metric.read(output, {}), metric.read(dense, {})).main.value

    assert (found(dense), found(turned), found(moved)) == (1, 1, 0.5)
    torch.testing.assert_close(task.compared(dense), torch.cat([logits, boxes], -1))
    p, q = (
        x.softmax(-1) if nothing else torch.stack([x.sigmoid(), 1 - x.sigmoid()], -1) for x in (logits, logits.flip(1))
    )
    apart = (p * (p / q).log()).flatten(2).sum(-1) + (boxes - boxes.flip(1)).abs().sum(-1)
    torch.testing.assert_close(task.distance(dense, turned), apart, rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match="without gradients"):
        task.loss(dense, {})


def test_a_finder_of_text_that_gives_a_map_is_no_detector_of_boxes():
    class MapForObjectDetection(torch.nn.Module):
        def forward(self, pixel_values):
            return SimpleNamespace(logits=pixel_values.mean(1, keepdim=True), last_hidden_state=pixel_values)

    task, pixels = task_of(MapForObjectDetection(), YOLOS), torch.randn(2, 3, 4, 4)
    assert task.name == "embedding"
    torch.testing.assert_close(task.compared(task.model(pixels)), pixels.mean(1, keepdim=True))


def test_boxes_overlap_by_what_they_have_in_common_of_what_they_cover():
    one, other = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2], [0, 0, 2, 2], [5, 5, 6, 6]])
    torch.testing.assert_close(overlap(one, other), torch.tensor([[2 / 6, 1, 0]]))


def test_an_encoder_decoder_without_a_head_has_its_encoders_embedding():
    torch.manual_seed(0)
    model = T5Model(T5).eval()
    ids = torch.randint(0, 61, (5, 9))
    batch = {"input_ids": ids, "decoder_input_ids": ids.flip(1)}
    with torch.no_grad():
        expected = model.get_encoder()(input_ids=ids).last_hidden_state.mean(1)
        found = task_of(model).metric(batch).read(model(**batch), batch)
    torch.testing.assert_close(found.values, expected)


def test_tasks_of_other_packages_are_asked_first_and_general_ones_last(monkeypatch):
    class Scores(Task):
        name, hub_task = "scores", "other"
        result = loss = metric = distance = None  # pyright: ignore

        @classmethod
        def fits(cls, model, config):
            return type(model).__name__ in ("ViTForImageClassification", "ViTModel")

    tasks.names()  # so that all others are there
    monkeypatch.setattr(tasks, "_entries", dict(tasks._entries))
    tasks.add("scores")(Scores)
    assert task_of(ViTForImageClassification(VIT)).name == "scores"
    monkeypatch.setattr(Scores, "general", True)
    assert task_of(ViTForImageClassification(VIT)).name == "classes"
    assert task_of(ViTModel(VIT)).name == "scores"  # before this package's general one


def test_all_that_a_model_puts_out_is_compared():
    task = task_of(ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=16)))
    states, pooled = torch.ones(2, 3, 4), torch.zeros(2, 4)
    together = task.compared({"last_hidden_state": states, "pooler_output": pooled, "attentions": (states,)})
    assert torch.equal(together, torch.cat([states.flatten(), pooled.flatten()]))
    several = task.compared(SimpleNamespace(logits=(pooled, states)))
    assert torch.equal(several, torch.cat([pooled.flatten(), states.flatten()]))
    assert task.compared(SimpleNamespace(logits=pooled)) is pooled


def test_a_class_made_of_a_detector_by_another_name_detects():
    made = type("CompressedForZeroShotObjectDetection", (YolosForObjectDetection,), {})
    config = YolosConfig(**SMALL, image_size=[32, 32], patch_size=16, num_detection_tokens=3)
    with torch.device("meta"):
        assert task_of(made(config)).name == "detection"
