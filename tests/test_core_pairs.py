"""What pairs are drawn from and which are kept: arXiv:2211.09800, section 3.1."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_core.pairs import Captions, Judged, Recipe, Thresholds, select

REPOSITORY = Path(__file__).resolve().parents[1]
KEY = Captions("a cat", "make it a dog", "a dog").key


def test_the_papers_numbers_are_the_defaults() -> None:
    draws = Recipe().draws(0, KEY)
    assert len(draws) == 100 == len({draw.seed for draw in draws})
    shares, scales = [draw.cross for draw in draws], [draw.cfg for draw in draws]
    assert 0.1 <= min(shares) < 0.2 and 0.8 < max(shares) <= 0.9
    assert 7.5 <= min(scales) < 8.5 and 14 < max(scales) <= 15
    assert all(draw.cross == draw.self_ for draw in draws)
    edge = (0.2, 0.2, 0.2, 0.75)
    assert Thresholds().judge(*edge).refused is None
    for number, name in enumerate(
        ("source caption", "edited caption", "directional", "image image")
    ):
        below = [value - 1e-6 * (number == at) for at, value in enumerate(edge)]
        assert Thresholds().judge(*below).refused == f"{name} too low"


def test_a_sample_is_the_same_whoever_draws_it() -> None:
    there = "import sys; sys.path.insert(0, sys.argv[1]); from p2p_core.pairs import *; "
    there += "print(Recipe(samples=3).draws(7, Captions('a cat', 'make it a dog', 'a dog').key))"
    told = subprocess.check_output([sys.executable, "-c", there, str(REPOSITORY)], text=True)
    draws = Recipe(samples=5).draws(7, KEY)
    assert told.strip() == str(draws[:3])
    assert not {draw.seed for draw in draws} & {draw.seed for draw in Recipe().draws(8, KEY)}
    other = Captions("a cat", "make it a dog", "a pig").key
    assert not {draw.seed for draw in draws} & {draw.seed for draw in Recipe().draws(7, other)}


def test_samples_of_one_batch_share_their_draw() -> None:
    draws = Recipe(samples=7, together=3, cross=(0, 0), self_=(0.1, 0.9)).draws(0, KEY)
    assert [draw.number for draw in draws] == list(range(7))
    assert [draws.index(next(d for d in draws if d.seed == draw.seed)) for draw in draws] == [
        0, 0, 0, 3, 3, 3, 6,
    ]  # fmt: skip
    assert {draw.cross for draw in draws} == {0} and len({draw.self_ for draw in draws}) == 3


def test_best_first_and_what_became_of_the_rest() -> None:
    judged = [
        Judged(0.3), Judged(0.9, "too low"), Judged(0.5), Judged(0.5), Judged(0.1),
        Judged(0, "bad"), Judged(0, "too low"),
    ]  # fmt: skip
    chosen = select(judged, most=3)
    assert chosen.kept == (2, 3, 0)
    assert str(chosen) == "3 of 7 pairs kept; 2: too low; 1: bad; 1: beyond the best 3"
    assert str(select([], 3)) == "0 of 0 pairs kept"


def test_a_score_that_is_no_number_is_refused() -> None:
    assert Thresholds().judge(0.3, math.nan, 0.3, 0.8).refused == "edited caption too low"


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"samples": 0}, "samples must be 1 or more, got 0"),
        ({"together": 0}, "together must be 1 or more"),
        (
            {"cross": (0.9, 0.1)},
            r"cross must be a range \(low, high\) within 0…1, got \(0.9, 0.1\)",
        ),
        ({"self_": (0.1, 1.1)}, "self_ must be a range"),
        ({"cfg": (math.nan, 15)}, r"cfg must be a range \(low, high\) within 0 or more"),
    ],
)
def test_what_cannot_be_drawn(wrong: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Recipe(**wrong)


def test_nothing_can_be_kept() -> None:
    with pytest.raises(ValueError, match="pairs to keep must be 1 or more"):
        select([], 0)
