"""The vision–language model that tools/ trains: its pictures and questions, and a tiny one from training to pruning."""

from __future__ import annotations

import importlib
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

TOOLS = Path(__file__).resolve().parent.parent / "tools"


@pytest.fixture(scope="module", autouse=True)
def tools():
    """Makes the files of tools/ and of its benchmarks importable; the modules stay imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS / "bench")
        patch.syspath_prepend(TOOLS)
        yield


@pytest.fixture(scope="module")
def scenes():
    module = importlib.import_module("joined.scenes")
    return [module.scene(number, split) for split in ("train", "test") for number in range(25)]


@pytest.fixture(scope="module")
def all_questions():
    return importlib.import_module("joined.questions").all_questions


def test_every_object_lies_whole_in_the_picture_and_none_covers_another(scenes):
    for scene in scenes:
        boxes = [thing.box for thing in scene.things]
        assert all(min(box) >= 0 and max(box) <= len(scene.picture) for box in boxes)
        for i, (left, top, right, bottom) in enumerate(boxes):
            for u, v, x, y in boxes[:i]:
                assert x < left or right < u or y < top or bottom < v


def test_a_plain_shape_has_its_color_at_its_center(scenes):
    colors = importlib.import_module("joined.scenes").COLORS
    plain = [(scene, thing) for scene in scenes for thing in scene.shapes if thing.look in colors]
    assert len({thing.look for _, thing in plain}) == len(colors)
    for scene, thing in plain:
        assert tuple(scene.picture[round(thing.y), round(thing.x)]) == colors[thing.look]


def test_coverage_sums_to_the_area_of_the_objects(scenes):
    for scene in scenes:
        areas = [(2 * thing.radius / scene.patch) ** 2 for thing in scene.things]
        np.testing.assert_allclose(scene.coverage().sum(1), areas)


def test_a_picture_is_the_same_every_time_and_of_its_split(scenes):
    scene = importlib.import_module("joined.scenes").scene
    again, other = scene(3), scene(3, "test")
    assert np.array_equal(scenes[3].picture, again.picture) and scenes[3].things == again.things
    assert not np.array_equal(again.picture, other.picture)


def test_one_question_has_one_answer_and_names_the_object_it_is_about(scenes, all_questions):
    kinds = set()
    for scene in scenes:
        asked = list(all_questions(scene))
        assert len({question.text for question in asked}) == len(asked)
        kinds |= {question.kind for question in asked}
        for question in asked:
            thing = None if question.about is None else scene.things[question.about]
            if question.kind == "shape":
                assert question.answer == thing.name and thing.look in question.text
            elif question.kind in ("color", "material"):
                assert question.answer == thing.look and thing.name in question.text
            elif question.kind == "exist":
                assert (question.answer == "yes") == (thing is not None)
            elif question.kind == "count":
                names = importlib.import_module("joined.scenes").NUMBERS
                assert names.index(question.answer) == len(scene.things) - 1
    assert kinds == {"digit", "color", "material", "shape", "where", "relation", "count", "exist"}


def test_relations_hold_between_the_centers_and_of_one_object_alone(scenes, all_questions):
    ahead = {
        "left of": lambda thing: -thing.x,
        "right of": lambda thing: thing.x,
        "above": lambda thing: -thing.y,
        "below": lambda thing: thing.y,
    }
    found = [(scene, one) for scene in scenes for one in all_questions(scene) if one.kind == "relation"]
    assert found
    for scene, question in found:
        words = re.fullmatch(r"What is (.+) the (.+)\?", question.text)
        along, thing = ahead[words[1]], scene.things[question.about]
        assert words[2] == thing.name
        assert [other.name for other in scene.things if along(other) > along(thing)] == [question.answer]


def test_chosen_questions_differ_and_leave_out_no_kind_before_another_comes_twice(scenes, all_questions):
    choose = importlib.import_module("joined.questions").questions
    for scene in scenes:
        kinds = {question.kind for question in all_questions(scene)}
        chosen = choose(scene, random.Random(0), len(kinds))
        assert {question.kind for question in chosen} == kinds
        assert len(choose(scene, random.Random(0), 3)) == 3


@pytest.fixture(scope="module")
def tiny():
    """A tiny model that was trained, saved and loaded, its processor, and questions about fresh pictures."""
    tool = importlib.import_module("joined_vlm")
    model, prepare = tool.load(tool.folder(tiny=True))
    return model, prepare, tool.fresh(model, 60)


def evaluate(*given, **more):
    return importlib.import_module("joined.answering").evaluate(*given, **more).overall()[0]


@pytest.mark.slow
def test_a_tiny_model_answers_what_it_sees_and_not_what_it_does_not(tiny):
    pictures = [scene.picture for scene in tiny[2].scenes]
    assert evaluate(*tiny) > 0.8
    assert evaluate(*tiny, pictures=pictures[1:] + pictures[:1]) < 0.4
    assert evaluate(*tiny, pictures=[]) < 0.4


@pytest.mark.slow
def test_it_generates_the_answer_that_a_single_forward_finds_likeliest(tiny):
    model, prepare, exam = tiny
    prompt = importlib.import_module("joined.assembly").prompt
    for scene, (question,) in zip(exam.scenes[:4], exam.asked[:4], strict=True):
        inputs = prepare(
            text=prompt(prepare.tokenizer, question.text),
            images=[scene.picture],
            return_tensors="pt",
            add_special_tokens=False,
        )
        said = model.generate(**inputs, max_new_tokens=3, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        one = importlib.import_module("joined.answering").Exam([scene], [[question]])
        right = prepare.tokenizer.decode(said, skip_special_tokens=True).strip() == question.answer
        assert right == (evaluate(model, prepare, one) == 1)


@pytest.mark.slow
def test_what_a_question_is_about_is_worth_more_tokens_than_chance_finds(tiny):
    bench = importlib.import_module("visual_tokens")
    model, prepare, exam = tiny
    found = {}
    for name, share in (("oracle", 0.11), ("random", 0.11), ("random", 1.0)):
        keeper = bench.Keeper(bench.REFERENCES[name], share)
        with keeper.on(model):
            found[name, share] = evaluate(model, prepare, exam, before=keeper.hear)
    assert found["random", 1.0] == evaluate(model, prepare, exam)
    assert found["oracle", 0.11] > found["random", 0.11]


def test_tokens_are_spread_evenly():
    order = importlib.import_module("visual_tokens").evenly(importlib.import_module("joined.twin").scene(0), None, None)
    assert sorted(order) == list(range(36))
    rows, columns = np.divmod(np.array(order[:9]), 6)
    assert len(set(rows.tolist())) >= 4 and len(set(columns.tolist())) >= 4


@pytest.mark.slow
def test_packed_questions_are_answered_as_if_alone(tiny):
    model, prepare, exam = tiny
    packing = importlib.import_module("joined.packing")
    questions = [exam.asked[i][0] for i in range(3)]
    pixels = prepare.image_processor([exam.scenes[0].picture], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        seen = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        together, _ = packing.answers(model, 1, seen, packing.pack([questions], prepare.tokenizer, 36))
        alone = [packing.answers(model, 1, seen, packing.pack([[one]], prepare.tokenizer, 36))[0] for one in questions]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)
