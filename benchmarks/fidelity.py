"""Does the edit arrive, and does the rest stay? Held-out edits of the picture book, judged.

    python dev.py python -- benchmarks/fidelity.py --count 300

Every edit is made three ways from one noise: the target prompt without control, Prompt-to-Prompt,
and Prompt-to-Prompt with a local blend. Only edits whose source the judge finds right count.
Columns:

- success: the judge finds what the target prompt says, and nothing else;
- kept: PSNR against the source of what should stay: the picture outside the things before and
  after, or the thing itself where the place or the season changes; and how much more that is than
  without control;
- structure: overlap (IoU) of the thing's region in source and edit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.append(str(Path(__file__).resolve().parents[1] / "demo_model"))
from book.edits import Case, Score, blended, cases, score, shows
from book.judge import judge
from book.studio import Studio

NO_CONTROL = "no control"
METHODS = (NO_CONTROL, "P2P", "P2P + blend")


def pictures(studio: Studio, case: Case, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The source and the edit made by every method."""
    source, *edits = studio.pictures([case, blended(case)], seed)
    return source, dict(zip(METHODS, (studio.free(case.target.text, seed), *edits), strict=True))


def table(scores: dict[tuple[str, str], list[Score]], title: str) -> Table:
    """A row for every (kind, method)."""
    columns = ("edit", "method", "n", "success", "kept", "gain", "structure")
    shown = Table(*columns, box=MARKDOWN, title=title)
    for (kind, method), rows in scores.items():
        success, kept, structure = map(statistics.fmean, zip(*rows, strict=True))
        free = statistics.fmean(row.kept for row in scores[kind, NO_CONTROL])
        gain = f"{kept - free:+.1f} dB" if method != NO_CONTROL else ""
        cells = f"{100 * success:.0f} %", f"{kept:.1f} dB", gain, f"{structure:.2f}"
        shown.add_row(kind, method, str(len(rows)), *cells)
    return shown


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=6.0)
    parser.add_argument("--weights", type=Path, help="other weights of the text-to-image model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pictures", type=Path, help="also write the first edits as a sheet")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    studio = Studio(options.weights, options.steps, options.cfg)
    scores: dict[tuple[str, str], list[Score]] = defaultdict(list)
    sheet, wrong = [], 0
    for seed, case in enumerate(track(cases(options.count), console=Console(stderr=True))):
        source, edits = pictures(studio, case, seed)
        if len(sheet) < 15:
            sheet.append(np.concatenate([source, *edits.values()], axis=1))
        if not shows(judge(source), case.source):
            wrong += 1
            continue
        for method, picture in edits.items():
            result = score(source, picture, case)
            scores[case.kind, method].append(result)
            scores["all", method].append(result)
    scores |= {key: scores.pop(key) for key in list(scores) if key[0] == "all"}  # to the end
    title = f"{options.count} held-out edits, {options.steps} steps; {wrong} sources were wrong"
    Console(width=110).print(table(scores, title))
    if options.pictures:
        Image.fromarray(np.concatenate(sheet)).save(options.pictures)


if __name__ == "__main__":
    main()
