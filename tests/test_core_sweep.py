"""Sweeps without a host: lists and ranges, their combinations, and the best of them."""

from __future__ import annotations

import pytest

from p2p_core.schedule import Window
from p2p_core.sweep import Grid, best_of, parse_axis, spelled_setting


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("cross_replace_steps", "0, 0.4,0.8", [0, 0.4, 0.8]),
        ("cross_replace_steps", "0.0:1.0:0.2", [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ("self_replace_steps", "1:0:-0.5; .25", [1, 0.5, 0, 0.25]),
        ("self_replace_steps", "0.1:0.35:0.1, 0.3", [0.1, 0.2, 0.3]),
        ("scales", "-2:2:1", [-2, -1, 0, 1, 2]),
        ("seeds", "7, 1:3, 10:30:10", [7, 1, 2, 3, 10, 20, 30]),
        ("seeds", "18446744073709551615", [2**64 - 1]),
        ("windows", "0-0.4\n0.2 - 1", [Window(0, 0.4), Window(0.2, 1)]),
        ("thresholds", " \n", []),
    ],
)
def test_lists_and_ranges(name: str, text: str, values: list) -> None:
    assert parse_axis(name, text) == values


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cross_replace_steps", "0:1:0", r"'0:1:0' of cross_replace_steps never ends"),
        ("cross_replace_steps", "0:1:-0.1", "never ends.*do not lead to 1"),
        ("cross_replace_steps", "0:1", "'0:1' of cross_replace_steps has no step.*0:1:0.2"),
        ("cross_replace_steps", "0:1:0.0001", "has more than 1000 values"),
        ("cross_replace_steps", "0:1:1e-300", "has more than 1000 values"),
        ("cross_replace_steps", "0.5, 1.5", "has 1.5, but takes values from 0 to 1"),
        ("cross_replace_steps", "0.5 0.6", "'0.5 0.6', which is not a number"),
        ("cross_replace_steps", "nan", "'nan', which is not a number"),
        ("scales", "1e999", "'1e999', which is not a number"),
        ("scales", "0, 11", "takes values from -10 to 10"),
        ("seeds", "1.5", "'1.5', which is not a whole number"),
        ("seeds", "1:99999999999", "has more than 1000 values"),
        ("seeds", "0:1500:2, 0:1500:3", "seeds has more than 1000 values"),
        ("windows", "0.4", "'0.4', which is no window"),
        ("windows", "0.8-0.4", "start is not after its end"),
    ],
)
def test_bad_lists(name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_axis(name, text)


def test_combinations() -> None:
    grid = Grid({"cross_replace_steps": [0.2], "self_replace_steps": [0, 1], "seeds": [3, 4]})
    assert grid.columns == [{"self_replace_steps": 0}, {"self_replace_steps": 1}]
    assert [row["seeds"] for row in grid.rows] == [3, 4]
    assert [spelled_setting(setting) for setting in grid.settings] == [
        f"cross_replace_steps 0.2, self_replace_steps {share}, seed {seed}"
        for seed in (3, 4)
        for share in (0, 1)
    ]
    assert Grid({}).settings == [{}]


def row(**scores: float) -> dict[str, float]:
    return {"structure_distance": 0.1, "ssim": 0.5, **scores}


def test_the_best_by_a_score() -> None:
    rows = [
        row(directional_similarity=0.1, image_similarity=0.9, psnr=20),
        row(directional_similarity=0.4, image_similarity=0.6, psnr=10),
        row(directional_similarity=0.3, image_similarity=0.8, psnr=15),
    ]
    assert best_of(rows, "auto", 0.75).number == 2
    assert best_of(rows, "auto", 0.0).number == 1
    assert best_of(rows, "psnr", 0.75).number == 0
    assert best_of(rows, "structure_distance", 0.75).why == "lowest structure_distance"
    none = best_of(rows, "directional_similarity", 0.95)
    assert none.number == 1 and "none has an image_similarity of 0.95" in none.why
    with pytest.raises(ValueError, match="best_by is lpips, but no picture"):
        best_of(rows, "lpips", 0.75)


def test_the_best_without_clip_changes_most_and_keeps_the_structure() -> None:
    rows = [row(structure_distance=d, ssim=s) for d, s in ((0.01, 0.9), (0.05, 0.6), (0.1, 0.3))]
    assert best_of(rows, "auto", 0.75).number == 1
    same = [row(structure_distance=0.0, ssim=1.0)] * 2
    assert best_of(same, "auto", 0.75).number == 0
