"""Sweeps: every combination of some settings of one edit, and which of them is best."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from .edits import PromptEdit, with_word_window
from .schedule import Window, checked_window
from .scores import SCORES, Scores

MOST_VALUES = 1000  # of one list
AXES = (
    "cross_replace_steps",
    "self_replace_steps",
    "scales",
    "windows",
    "thresholds",
    "seeds",
)
LAST_SEED = 2**64 - 1
LIMITS = {
    "cross_replace_steps": (0, 1),
    "self_replace_steps": (0, 1),
    "scales": (-10, 10),
    "thresholds": (0, 1),
    "seeds": (0, LAST_SEED),
}
SINGULAR = {"scales": "scale", "windows": "window", "thresholds": "threshold", "seeds": "seed"}
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_WINDOW = re.compile(r"(\d+\.?\d*|\.\d+)\s*[-–]\s*(\d+\.?\d*|\.\d+)")
_RANGE = re.compile(rf"({_NUMBER})\s*:\s*({_NUMBER})(?:\s*:\s*({_NUMBER}))?")
FORM = "Write values as in '0, 0.4, 0.8' or a range 'first:last:step' as in '0:1:0.2'"


def parse_axis(name: str, text: str) -> list[Any]:
    """The values of a list such as "0, 0.4" or "0:1:0.2" (the last one included), in its order.

    A value that is named twice counts once. windows: Windows, from a list such as "0-0.4, 0.2-1".
    seeds: whole numbers, also as a range "1:8" in steps of 1. Raises ValueError for what is no
    value, for a range that never ends, for values outside of the limits and for too many.
    """
    found: list[Any] = []
    for part in filter(None, map(str.strip, re.split(r"[,;\n]", text))):
        found += [_window(part)] if name == "windows" else _numbers(name, part)
        if len(found) > MOST_VALUES:
            raise ValueError(f"{name} has more than {MOST_VALUES} values. Use fewer.")
    return list(dict.fromkeys(found))


def _window(part: str) -> Window:
    match = _WINDOW.fullmatch(part)
    if match is None:
        raise ValueError(
            f"windows has {part!r}, which is no window. Write shares of the steps as in "
            "'0-0.4, 0.2-0.8'."
        )
    return checked_window(float(match[1]), float(match[2]), "windows")


def _numbers(name: str, part: str) -> list[float]:
    whole = name == "seeds"
    match = _RANGE.fullmatch(part)
    if match is None:
        values = [_number(name, part, whole)]
    else:
        if match[3] is None and not whole:
            raise ValueError(f"The range {part!r} of {name} has no step. {FORM}.")
        first, last = (_number(name, bound, whole) for bound in match.groups()[:2])
        values = _range(name, part, first, last, _number(name, match[3] or "1", whole))
    low, high = LIMITS[name]
    for value in values:
        if not low <= value <= high:
            raise ValueError(f"{name} has {value:g}, but takes values from {low:g} to {high:g}.")
    return values


def _number(name: str, text: str, whole: bool) -> float:
    if whole and re.fullmatch(r"\d+", text):
        return int(text)
    if not whole and re.fullmatch(_NUMBER, text) and math.isfinite(float(text)):
        return float(text)
    kind = "a whole number" if whole else "a number"
    raise ValueError(f"{name} has {text!r}, which is not {kind}. {FORM}.")


def _range(name: str, part: str, first: float, last: float, step: float) -> list[float]:
    if step == 0 or (last - first) * step < 0:
        raise ValueError(
            f"The range {part!r} of {name} never ends: from {first:g} its steps of {step:g} do not "
            f"lead to {last:g}. {FORM}."
        )
    count = (last - first) // step if isinstance(step, int) else (last - first) / step + 1e-6
    if count >= MOST_VALUES:
        raise ValueError(f"The range {part!r} of {name} has more than {MOST_VALUES} values.")
    values = (first + step * number for number in range(int(count) + 1))
    return [value if isinstance(step, int) else round(value, 10) + 0.0 for value in values]


@dataclass(frozen=True)
class Grid:
    """The values of every axis that is swept, by name, in the order of AXES."""

    axes: Mapping[str, Sequence[Any]]

    @property
    def settings(self) -> list[dict[str, Any]]:
        """All combinations: rows from top to bottom, each from left to right."""
        columns, rows = self.columns, self.rows
        return [{**row, **column} for row in rows for column in columns]

    @property
    def columns(self) -> list[dict[str, Any]]:
        """Settings from left to right: the values of the first axis that has several."""
        name = self._across
        return [{}] if name is None else [{name: value} for value in self.axes[name]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Settings from top to bottom: every combination of the other axes, seeds outermost."""
        names = [name for name in reversed(list(self.axes)) if name != self._across]
        combinations = product(*(self.axes[name] for name in names))
        return [dict(zip(names, values, strict=True)) for values in combinations]

    @property
    def _across(self) -> str | None:
        several = (name for name, values in self.axes.items() if len(values) > 1)
        return next(several, next(iter(self.axes), None))


def spelled_setting(setting: Mapping[str, Any]) -> str:
    """A setting in words, such as "cross_replace_steps 0.4, seed 3"."""
    return ", ".join(f"{SINGULAR.get(name, name)} {value_text(setting[name])}"
                     for name in AXES if name in setting)  # fmt: skip


def value_text(value: Any) -> str:
    """A value of any axis."""
    if isinstance(value, Window):
        return f"{value.start:g}-{value.end:g}"
    return str(value) if isinstance(value, int) else f"{value:g}"


def with_setting(
    edit: PromptEdit,
    setting: Mapping[str, Any],
    scaled: Sequence[int] = (),
    windowed: Sequence[int] = (),
) -> PromptEdit:
    """The edit with one setting of a sweep (its seed is the sampler's).

    scaled, windowed: target columns that scales and windows are for. cross_replace_steps leaves
    words that have a window of their own alone. Raises ValueError for a threshold without a blend.
    """
    if (share := setting.get("cross_replace_steps")) is not None:
        common, new = edit.common_window, Window(0.0, share)
        windows = tuple(new if window == common else window for window in edit.windows)
        edit = replace(edit, windows=windows)
    if (share := setting.get("self_replace_steps")) is not None:
        edit = replace(edit, self_window=Window(0.0, share))
    if (scale := setting.get("scales")) is not None:
        edit = edit.reweighted(scaled, scale)
    if (window := setting.get("windows")) is not None:
        edit = with_word_window(edit, windowed, window)
    if (threshold := setting.get("thresholds")) is not None:
        if edit.blend is None or not edit.blend.words:
            raise ValueError(
                "thresholds sweeps the threshold of a local blend's words, but this edit has none. "
                "Put a P2P Local Blend Mask with words behind the edit, or leave thresholds empty."
            )
        edit = replace(edit, blend=replace(edit.blend, threshold=threshold))
    return edit


@dataclass(frozen=True)
class Choice:
    """The best of a sweep: its number, and why."""

    number: int
    why: str


def best_of(rows: Sequence[Scores], by: str, least_image_similarity: float) -> Choice:
    """The best of some scored settings.

    by: a score, or "auto": the directional similarity if it was measured; else, since nothing then
    tells whether an edit shows its words, the picture that changed most (lowest SSIM) of those
    whose structure distance lies in the lower half of the sweep's range. least_image_similarity:
    where CLIP's image similarity was measured, what the best one must have kept; if none has, all
    count. Raises ValueError for a score that no setting has.
    """
    numbers = [i for i, row in enumerate(rows) if not _lost(row, least_image_similarity)]
    note = "" if numbers else f"; none has an image_similarity of {least_image_similarity:g}"
    numbers = numbers or list(range(len(rows)))
    if by == "auto" and "directional_similarity" not in rows[0]:
        distances = [rows[i]["structure_distance"] for i in numbers]
        limit = (min(distances) + max(distances)) / 2
        near = [i for i, distance in zip(numbers, distances, strict=True) if distance <= limit]
        best = min(near, key=lambda i: rows[i]["ssim"])
        return Choice(best, "most change (lowest ssim) in the lower half of structure_distance")
    by = "directional_similarity" if by == "auto" else by
    known = [i for i in numbers if not math.isnan(rows[i].get(by, math.nan))]
    if not known:
        raise ValueError(f"best_by is {by}, but no picture of this sweep has one. Choose another.")
    sign = 1 if SCORES[by].higher else -1
    best = max(known, key=lambda i: sign * rows[i][by])
    return Choice(best, f"{'highest' if sign > 0 else 'lowest'} {by}{note}")


def _lost(row: Scores, least: float) -> bool:
    return row.get("image_similarity", math.inf) < least
