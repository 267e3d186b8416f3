"""The painted world: captions, what is held out, and a judge that sees what was painted."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "demo_model"))

from judge import judge
from world import (
    BACKGROUNDS,
    COLOURS,
    IMAGE_SIZE,
    SHAPES,
    Noun,
    Prompt,
    Scene,
    Thing,
    describe,
    held_out_prompts,
    is_held_out,
    render,
    sample_scene,
)


def test_captions_read_like_english() -> None:
    star = Noun("star", "orange", texture="striped", size="big", position="on the left")
    assert Prompt((star,), "green").text == (
        "a big striped orange star on the left on a green background"
    )
    assert Prompt((Noun("circle", "red"),)).text == "a red circle"
    two = Prompt((Noun("circle"), Noun("ring", "orange")), "orange")
    assert two.text == "a circle and an orange ring on an orange background"


def test_edits_change_one_thing() -> None:
    prompt = Prompt((Noun("circle", "red"),), "green")
    assert prompt.with_noun(colour="blue").text == "a blue circle on a green background"
    assert prompt.with_noun(texture="striped").text == "a striped red circle on a green background"
    assert prompt.with_background("white").text == "a red circle on a white background"


def test_training_scenes_are_never_held_out_and_stay_clear_of_the_border() -> None:
    rng = Random(1)
    for _ in range(300):
        scene = sample_scene(rng)
        for thing in scene.things:
            assert not is_held_out(thing.shape, thing.colour, scene.background)
        picture = render(scene).astype(int)
        assert picture.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert np.ptp(border, axis=0).max() == 0


def test_the_same_seed_paints_the_same_scene() -> None:
    first, second = (sample_scene(Random(5)) for _ in range(2))
    assert first == second
    assert describe(first, Random(6)) == describe(second, Random(6))


def test_held_out_prompts_cover_every_shape_colour_and_background() -> None:
    prompts = held_out_prompts(200)
    assert len(prompts) == 200
    assert {p.nouns[0].shape for p in prompts} == set(SHAPES)
    assert {p.nouns[0].colour for p in prompts} == set(COLOURS)
    assert {p.background for p in prompts} == set(BACKGROUNDS)
    assert all(is_held_out(p.nouns[0].shape, p.nouns[0].colour, p.background) for p in prompts)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_judge_names_every_shape_colour_and_background(shape: str) -> None:
    for colour, background in itertools.product(COLOURS, BACKGROUNDS):
        if colour == background:
            continue
        thing = Thing(shape, colour, None, None, None, 60, 66, 30)
        verdict = judge(render(Scene((thing,), background)))
        assert (verdict.shape, verdict.colour, verdict.background) == (shape, colour, background)
        assert not verdict.textured
        assert verdict.mask is not None
        assert verdict.mask[66, 60] != (shape == "ring")


def test_the_judge_is_right_about_random_scenes() -> None:
    rng = Random(2)
    right = {"background": [], "count": [], "shape": [], "colour": [], "texture": []}
    for _ in range(200):
        scene = sample_scene(rng)
        verdict = judge(render(scene))
        right["background"].append(verdict.background == scene.background)
        right["count"].append(len(verdict.objects) == len(scene.things))
        for found, thing in zip(verdict.objects, scene.things, strict=False):
            for name in ("shape", "colour", "texture"):
                right[name].append(getattr(found, name) == getattr(thing, name))
            assert abs(found.x - thing.x) < 4
            assert abs(found.radius - thing.radius) < 0.2 * thing.radius
    for name, checks in right.items():
        assert np.mean(checks) > (0.96 if name == "texture" else 0.99), name


def test_an_empty_picture_has_no_object() -> None:
    verdict = judge(np.full((64, 64, 3), 250, np.uint8))
    assert verdict.background == "white"
    assert verdict.objects == ()
    assert verdict.shape is verdict.colour is verdict.mask is None
