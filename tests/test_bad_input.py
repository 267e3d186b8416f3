"""Mistakes in prompts, words and numbers get one sentence: what is wrong, and what to do."""

from __future__ import annotations

import math

import pytest
from host_run import GraphError, run
from scenes import Edit, Settings, controlled, identity, scene

pytestmark = pytest.mark.usefixtures("host")
TARGET = "a photo of a blue dog on a bench"
SWAP = Edit("swap", TARGET)
TINY = Settings(steps=2, width=64, height=64)
WORDS = "Its words are: a, photo, of, blue, dog, on, bench"
IS_EMPTY = r"prompt is empty.*Describe"
WINDOW = r"window inside 0…1 whose start is not after its end, got "
FORM = r"not of the form 'word: start-end'.*Write for example"


def build(edit: Edit) -> None:
    """Only the edit nodes."""
    s = scene(TINY)
    run(s.graph, edit.build(s.graph, s.clip))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit("swap", TARGET, scales=(("zebra", 2.0),)), f"'zebra' is not in.*{WORDS}"),
        (Edit("swap", TARGET, scales=(("dog, cat", 2.0),)), f"'cat' is not in.*{WORDS}"),
        (Edit("swap", TARGET, scales=(("dog blue", 2.0),)), f"'dog blue' is not in.*{WORDS}"),
        (Edit("reweight", "two cats", scales=(("cat", 2.0),)), "'cat' is not in.*two, cats"),
        (Edit("swap", "🐶 שלום", scales=(("مرحبا", 2.0),)), "'مرحبا' is not in.*🐶, שלום"),
        (Edit("swap", TARGET, word_windows="cat: 0-1"), f"'cat' is not in.*{WORDS}"),
        (Edit("swap", TARGET, scales=(("", 2.0),)), "words is empty.*Name at least one word"),
        (Edit("swap", TARGET, scales=((" ,\n", 2.0),)), "words is empty.*Name at least one word"),
        (Edit("swap", TARGET, source=""), f"source_{IS_EMPTY}"),
        (Edit("refine", " \n", source="a cat"), f"target_{IS_EMPTY}"),
        (Edit("reweight", "", scales=(("cat", 2.0),)), IS_EMPTY),
    ],
)
def test_words_and_prompts(edit: Edit, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        build(edit)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("dog: 0.7-0.2", f"'dog'.*{WINDOW}0.7-0.2"),
        ("dog: 0-1.5", f"'dog'.*{WINDOW}0-1.5"),
        ("dog: -0.5-1", f"'dog'.*{WINDOW}-0.5-1"),
        ("a: 0-1\ndog 0-1", f"'dog 0-1' is {FORM}"),
        ("dog: 0.5", FORM),
        ("dog: nan-1", FORM),
        ("dog: early-late", FORM),
    ],
)
def test_word_windows(lines: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        build(Edit("swap", TARGET, word_windows=lines))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit("swap", TARGET, cross=1.5), "bigger than max.*cross_replace_steps"),
        (Edit("swap", TARGET, self_=-0.5), "smaller than min.*self_replace_steps"),
        (Edit("swap", TARGET, cross=math.nan), f"cross_replace_steps.*{WINDOW}0-nan"),
        (Edit("swap", TARGET, self_=math.nan), f"self_replace_steps.*{WINDOW}0-nan"),
        (Edit("swap", TARGET, scales=(("dog", math.nan),)), "scale must be a finite.*got nan"),
        (Edit("swap", TARGET, scales=(("dog", 10.5),)), "bigger than max.*scale"),
        (Edit("swap", TARGET, scales=(("dog", -math.inf),)), "smaller than min.*scale"),
    ],
)
def test_numbers(edit: Edit, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        build(edit)


@pytest.mark.parametrize("scale", [-10.0, 0.0, 10.0])
def test_scales_at_their_limits(scale: float) -> None:
    rows = controlled([Edit("swap", TARGET, scales=(("dog", scale),))], TINY)
    assert rows.isfinite().all()


def test_identical_prompts_are_fine() -> None:
    rows = controlled([identity(), identity(kind="refine")], TINY)
    assert len(rows) == 3


def test_different_sources() -> None:
    with pytest.raises(GraphError, match="same source.*red cat.*'a tree'.*one controller for each"):
        controlled([SWAP, Edit("swap", TARGET, source="a tree")], TINY)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (f"a cat {'tree ' * 300}", f"a dog {'tree ' * 300}"),
        ("🐱 кошка שלום عالم", "🐶 собака שלום عالم"),
        ("a\u200bcat \u202eabc", "a\u200bdog \u202eabc"),
        ("a cat", "a dog\n\nin \t two lines"),
    ],
    ids=["300 words", "scripts", "invisible", "lines"],
)
def test_unusual_prompts_work(source: str, target: str) -> None:
    assert controlled([Edit("swap", target, source)], TINY).isfinite().all()


def test_case_and_weights_do_not_hide_a_word() -> None:
    build(Edit("swap", "a (Blue dog:1.2) on a bench", scales=(("blue DOG", 2.0),)))
