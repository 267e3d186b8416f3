"""What a sweep has come to so far: scores, the best setting, a table and a sheet with axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..p2p_core.scores import SCORES, csv_table, spelled
from ..p2p_core.sweep import SINGULAR, Choice, Grid, best_of, spelled_setting, value_text
from .host.scorer import Scorer
from .host.sweep.run import Cell, Setting
from .sheets import Panel, grid_of

MOST_SHOWN = 3  # scores under a picture
SHOWN = (
    "directional_similarity",
    "image_similarity",
    "dino_structure_distance",
    "structure_distance",
    "psnr_outside",
    "psnr",
)
FRAME = (0.9, 0.1, 0.1)


class Board:
    """The cells of a sweep as they come. captions: of source and edit."""

    def __init__(self, grid: Grid, seed: int, scorer: Scorer, captions: tuple[str, str]) -> None:
        self.grid, self.seed, self.scorer, self.captions = grid, seed, scorer, captions
        self.cells: dict[str, Cell] = {}
        self.scores: dict[str, dict[str, float]] = {}

    def add(self, cells: Sequence[Cell]) -> None:
        """Score cells of one seed."""
        source, target = self.captions
        edits = torch.stack([cell.picture for cell in cells])
        rows = self.scorer.scores(cells[0].source[None], edits, source, [target] * len(cells))
        for cell, row in zip(cells, rows, strict=True):
            key = spelled_setting(cell.setting)
            self.cells[key], self.scores[key] = cell, row

    @property
    def settings(self) -> list[Setting]:
        """Those that are done, in the order of the sheet."""
        return [s for s in self.grid.settings if spelled_setting(s) in self.cells]

    @property
    def pictures(self) -> Tensor:
        """The edits, (n, H, W, 3), in the order of the table."""
        return torch.stack([self.cells[spelled_setting(s)].picture for s in self.settings])

    def best(self, by: str, least_image_similarity: float) -> Choice:
        """The best of those that are done; ValueError for a score that was not measured."""
        rows = [self.scores[spelled_setting(setting)] for setting in self.settings]
        return best_of(rows, by, least_image_similarity)

    def table(self) -> str:
        """Comma-separated values: a line for every setting that is done."""
        lines = [
            {"seed": self.seed, **{SINGULAR.get(name, name): _plain(value)
                                   for name, value in setting.items()}}
            for setting in self.settings
        ]  # fmt: skip
        return csv_table(lines, [self.scores[spelled_setting(s)] for s in self.settings])

    def sheet(self, best: Setting | None, by: str) -> Tensor:
        """All pictures with their axes, (H', W', 3): every row behind its source; best is framed.

        What is not done yet stays white.
        """
        panels: list[Panel] = []
        for row in self.grid.rows:
            done = [{**row, **column} for column in self.grid.columns]
            first = next((s for s in done if spelled_setting(s) in self.cells), None)
            source = None if first is None else self.cells[spelled_setting(first)].source
            panels.append(Panel(source, "\n".join(["source", *_lines(row)])))
            panels += [self._panel(row, column, best, by) for column in self.grid.columns]
        return grid_of(panels, columns=1 + len(self.grid.columns))

    def _panel(self, row: Setting, column: Setting, best: Setting | None, by: str) -> Panel:
        setting = {**row, **column}
        key = spelled_setting(setting)
        if key not in self.cells:
            return Panel(None, "\n".join(_lines(column)))
        scores, picture = self.scores[key], self.cells[key].picture
        names = [name for name in dict.fromkeys((by, *SHOWN)) if name in scores][:MOST_SHOWN]
        told = ", ".join(f"{SCORES[name].short} {spelled(name, scores[name])}" for name in names)
        is_best = setting == best
        lines = _lines(column)
        if is_best:
            lines = [f"best: {lines[0]}" if lines else "best", *lines[1:]]
        return Panel(_framed(picture) if is_best else picture, "\n".join([*lines, told]))


def _lines(setting: Setting) -> list[str]:
    return [f"{SINGULAR.get(name, name)} {value_text(value)}" for name, value in setting.items()]


def _plain(value: Any) -> Any:
    return value_text(value) if isinstance(value, tuple) else value


def _framed(picture: Tensor) -> Tensor:
    """A picture (H, W, 3) with a red frame."""
    width = math.ceil(min(picture.shape[:2]) / 64)
    framed = torch.tensor(FRAME).expand_as(picture).clone()
    framed[width:-width, width:-width] = picture[width:-width, width:-width]
    return framed
