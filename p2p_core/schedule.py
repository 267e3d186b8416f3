"""Time in a sampling run: which step a noise level belongs to, and windows of steps."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

ROUNDING = 1e-6  # of a step
FEW_STEPS = 8
LAYOUT_SHARE = 0.5  # of the window of self-attention


class Window(NamedTuple):
    """The half-open share [start, end) of a run's steps."""

    start: float
    end: float

    def holds(self, step: int, steps: int) -> bool:
        """Whether step ``step`` of ``steps`` (counted from 0) lies inside.

        A bound that is a step's share but for rounding is that step: 0.1 + 0.2 of 10 steps is 3.
        """
        return self.start * steps - ROUNDING <= step < self.end * steps - ROUNDING


WHOLE_RUN = Window(0.0, math.inf)


def layout_window(window: Window, steps: int) -> Window:
    """In which steps of a run a transformer takes its layout from the source, if nobody says so.

    window: that of self-attention. Half of it, 0.2 of the steps at its default of 0.4, as in Kim et
    al. 2025 (arXiv:2508.07519); distilled schedules make the layout in their first step.
    """
    if steps <= FEW_STEPS:
        return Window(0.0, 1 / steps if window.end > window.start else 0.0)
    return window._replace(end=window.end * LAYOUT_SHARE)


def checked_window(start: float, end: float, name: str) -> Window:
    """A Window, or ValueError unless 0 <= start <= end <= 1."""
    if not (math.isfinite(start) and math.isfinite(end) and 0.0 <= start <= end <= 1.0):
        raise ValueError(
            f"{name} must be a window inside 0…1 whose start is not after its end, "
            f"got {start:g}-{end:g}."
        )
    return Window(start, end)


def step_index(sigma: float, sigmas: Sequence[float], tolerance: float = 1e-5) -> int:
    """The step that the noise level ``sigma`` belongs to: the last one starting at or above it.

    sigmas: the run's N + 1 descending noise levels. Right also for samplers that call the model
    several times in a step, or slightly above the first level.
    """
    started = sum(level >= sigma * (1.0 - tolerance) for level in sigmas[:-1])
    return max(started - 1, 0)


def parse_word_windows(text: str) -> list[tuple[str, Window]]:
    """Read lines ``word: start-end`` (shares of the steps) into (word, Window) pairs.

    Raises ValueError for a line of another form, a window outside 0…1, or a word given twice.
    """
    pairs: list[tuple[str, Window]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _WORD_WINDOW.fullmatch(line)
        if match is None:
            raise ValueError(
                f"word_windows line {line!r} is not of the form 'word: start-end'. Write for "
                "example 'cat: 0-0.4', one word or phrase of the target prompt per line."
            )
        word, start, end = match.groups()
        if word in dict(pairs):
            raise ValueError(f"word_windows names {word!r} twice. Give every word one line.")
        pairs.append((word, checked_window(float(start), float(end), f"word_windows of {word!r}")))
    return pairs


_NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+))"
_WORD_WINDOW = re.compile(rf"(.*\S)\s*:\s*{_NUMBER}\s*[-–]\s*{_NUMBER}")
