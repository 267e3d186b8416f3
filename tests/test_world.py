"""The demo world: captions, scenes, what is held out, and its judge."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "demo_model"))

from book.judge import judge_pictures
from book.things import COLOURS, DRESSED, DYED, KINDS
from book.world import (
    IMAGE_SIZE,
    SETTINGS,
    Noun,
    Prompt,
    Scene,
    Thing,
    caption_words,
    default_colour,
    describe,
    held_out_prompts,
    is_held_out,
    render,
    render_with_mask,
    sample_scene,
)

CAT = Prompt((Noun("cat"),), "grass")


def scene(kind: str, colour: str | None = None, **more: object) -> Scene:
    """One thing in the middle of the meadow."""
    thing = Thing(kind, colour, None, None, 64, 112, 66)
    return replace(Scene((thing,), "grass", horizon=78, extras=4), **more)  # type: ignore[arg-type]


def test_captions_read_like_english() -> None:
    fish = Noun("fish", "blue", "small")
    assert Prompt((fish,), "water").text == "a small blue fish under water"
    assert Prompt((Noun("owl", clothes="hat"),), "night").text == "an owl wearing a hat at night"
    two = Prompt((Noun("cat"), Noun("elephant")), "beach", side="left")
    assert two.text == "a cat and an elephant on the left on the beach"
    drawn = replace(CAT, autumn=True, pencil=True)
    assert drawn.text == "a pencil drawing of a cat on the grass in autumn"


def test_one_thing_or_colour_or_place_is_one_word() -> None:
    def changed(one: Prompt, other: Prompt) -> int:
        first, second = one.text.split(), other.text.split()
        assert len(first) == len(second)
        return sum(a != b for a, b in zip(first, second, strict=True))

    car = Prompt((Noun("car", "red"),), "snow")
    assert changed(CAT, CAT.with_noun(thing="dog")) == 1
    assert changed(car, car.with_noun(colour="blue")) == 1
    assert changed(CAT, replace(CAT.with_setting("snow"), usual=False)) == 1


def test_the_world_is_as_rich_as_it_says() -> None:
    assert len(KINDS) >= 32
    assert len(SETTINGS) >= 7
    assert len(COLOURS) >= 6 and len(DYED) >= 8
    assert all(default_colour(kind) in COLOURS for kind in DYED)


def test_training_scenes_are_never_held_out_and_everything_comes() -> None:
    rng, seen = Random(1), Counter()
    for _ in range(1500):
        made = sample_scene(rng)
        for thing in made.things:
            assert not is_held_out(thing.kind, thing.colour, made.setting)
            assert (thing.colour is None) == (thing.kind not in DYED)
            assert thing.clothes is None or thing.kind in DRESSED
            seen[thing.kind] += 1
        seen.update([made.setting, made.place, made.autumn and "autumn", made.pencil and "pencil"])
    assert set(KINDS) | set(SETTINGS) | {"left", "right", "autumn", "pencil"} <= set(seen)
    assert min(seen[kind] for kind in DYED) > max(seen[kind] for kind in ("cake", "house")) / 1.5


def test_a_noun_alone_has_its_own_colour() -> None:
    rng = Random(2)
    for _ in range(400):
        made = sample_scene(rng)
        for thing, noun in zip(made.things, describe(made, rng).nouns, strict=True):
            assert noun.colour in (None, thing.colour)
            if thing.colour and noun.colour is None:
                assert thing.colour == default_colour(thing.kind)


def test_every_caption_word_is_known() -> None:
    rng, words = Random(3), set(caption_words())
    for _ in range(400):
        assert set(describe(sample_scene(rng), rng).text.split()) <= words


def test_the_same_scene_paints_the_same_picture() -> None:
    first, second = (sample_scene(Random(5)) for _ in range(2))
    assert first == second
    assert np.array_equal(render(first), render(second))


@pytest.mark.parametrize("kind", KINDS)
def test_every_thing_is_painted_where_it_stands(kind: str) -> None:
    colours = list(COLOURS) if kind in DYED else [None]
    pictures = []
    for colour in colours:
        picture, mask = render_with_mask(scene(kind, colour))
        assert picture.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
        rows, columns = np.where(mask > 128)
        assert 55 < max(np.ptp(rows), np.ptp(columns)) < 70
        assert abs((columns.min() + columns.max()) / 2 - 64) < 4
        pictures.append(picture)
    assert len({picture.tobytes() for picture in pictures}) == len(colours)


def test_what_no_word_names_moves_by_itself() -> None:
    """The same words, other extras: another sky, but the thing stays in its place."""
    first, second = (render_with_mask(scene("cat", extras=extras)) for extras in (1, 2))
    assert np.array_equal(first[1], second[1])
    assert (first[0] != second[0]).any(-1).mean() > 0.02


def test_clothes_season_and_style_change_the_picture() -> None:
    plain = scene("cat")
    dressed = replace(plain, things=(replace(plain.things[0], clothes="hat"),))
    assert render_with_mask(dressed)[1].sum() > render_with_mask(plain)[1].sum()
    autumn, grey = render(replace(plain, autumn=True)), render(replace(plain, pencil=True))
    assert np.abs(autumn.astype(int) - render(plain)).mean() > 20
    assert np.ptp(grey.astype(int), axis=-1).max() < 16


def test_held_out_prompts_ask_for_everything() -> None:
    prompts = held_out_prompts(300)
    nouns = [prompt.nouns[0] for prompt in prompts]
    assert {noun.thing for noun in nouns} == set(KINDS)
    assert {noun.colour for noun in nouns} == {*COLOURS, None}
    assert {prompt.setting for prompt in prompts} == set(SETTINGS)
    for noun, prompt in zip(nouns, prompts, strict=True):
        assert is_held_out(noun.thing, noun.colour, prompt.setting or "")


def test_the_judge_is_right_about_painted_scenes() -> None:
    rng = Random(9)
    scenes = [sample_scene(rng, held_out=True) for _ in range(120)]
    painted = [render_with_mask(one) for one in scenes]
    verdicts = judge_pictures(np.stack([picture for picture, _ in painted]))
    right = [verdict.setting == one.setting for verdict, one in zip(verdicts, scenes, strict=True)]
    assert np.mean(right) > 0.97
    overlaps = []
    for one, (_, mask), verdict in zip(scenes, painted, verdicts, strict=True):
        if len(one.things) == 1:
            truth = mask > 128
            overlaps.append((truth & verdict.mask).sum() / (truth | verdict.mask).sum())
            right.append(verdict.thing == one.things[0].kind)
    assert np.mean(right) > 0.97
    assert np.mean(overlaps) > 0.85
