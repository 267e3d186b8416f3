"""The scores of edits by name: which way is better, and tables of them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Scores = Mapping[str, float]


class Score(NamedTuple):
    """higher: whether more is better. short: for captions. digits: behind the point."""

    higher: bool
    short: str
    digits: int = 3


PLACES = ("", "_outside", "_inside")
SCORES: dict[str, Score] = {
    "directional_similarity": Score(True, "dir"),
    "caption_similarity": Score(True, "caption"),
    "source_caption_similarity": Score(True, "source caption"),
    "image_similarity": Score(True, "image"),
    "structure_distance": Score(False, "structure", 4),
    "dino_structure_distance": Score(False, "DINO structure", 4),
    **{f"psnr{place}": Score(True, f"PSNR{place.replace('_', ' ')}", 1) for place in PLACES},
    **{f"ssim{place}": Score(True, f"SSIM{place.replace('_', ' ')}") for place in PLACES},
    **{f"lpips{place}": Score(False, f"LPIPS{place.replace('_', ' ')}") for place in PLACES},
}


def spelled(name: str, value: float) -> str:
    """A score in figures; a dash for one that was not measured."""
    return "-" if math.isnan(value) else f"{value:.{SCORES[name].digits}f}"


def measured(rows: Sequence[Scores]) -> list[str]:
    """The scores that a table has, in their order."""
    return [name for name in SCORES if any(name in row for row in rows)]


def text_table(labels: Sequence[str], rows: Sequence[Scores]) -> str:
    """Scores for people: a line for each label, columns aligned."""
    names = measured(rows)
    lines = [["", *names]]
    for label, row in zip(labels, rows, strict=True):
        lines.append([label, *(spelled(name, row.get(name, math.nan)) for name in names)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )


def csv_table(settings: Sequence[Mapping[str, object]], rows: Sequence[Scores]) -> str:
    """Scores for programs: comma-separated values with a header, at full precision.

    settings: what each line is of, by column. What was not measured stays empty.
    """
    names = measured(rows)
    columns = [*dict.fromkeys(key for setting in settings for key in setting), *names]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for setting, row in zip(settings, rows, strict=True):
        writer.writerow({**setting, **{name: row[name] for name in names if name in row}})
    return out.getvalue()
