"""Does the edit arrive, and does the rest stay? Edits of held-out prompts, judged.

`python -m book.measure --count 100` (in `demo_model/`). Every edit is made from one noise twice:
the target prompt without control, and by Prompt-to-Prompt. Only edits whose source the judge finds
right count. "kept" is the PSNR of what should stay: the picture outside the things before and
after, or the thing itself where the place or the season changes.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from book.edits import Score, Studio, cases, score, shows
from book.judge import judge
from book.networks import CONFIG

METHODS = ("no control", "P2P")


def measure(studio: Studio, count: int) -> tuple[dict[tuple[str, str], list[Score]], int]:
    """Scores by kind of edit and method, and how many sources were wrong."""
    scores: dict[tuple[str, str], list[Score]] = defaultdict(list)
    wrong = 0
    for seed, case in enumerate(cases(count)):
        source, edited = studio.pictures([case], seed)
        if not shows(judge(source), case.source):
            wrong += 1
            continue
        for method, picture in zip(METHODS, (studio.free(case.target, seed), edited), strict=True):
            result = score(source, picture, case)
            scores[case.kind, method].append(result)
            scores["all", method].append(result)
    return scores, wrong


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, default=CONFIG.WEIGHTS_PATH)
    parser.add_argument("--count", type=int, default=100)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger().setLevel(logging.INFO)
    torch.set_num_threads(1)
    scores, wrong = measure(Studio(args.weights), args.count)
    logging.info("%d of %d sources were not what their prompt says", wrong, args.count)
    logging.info("| edit | method | n | success | kept |\n|---|---|---|---|---|")
    for (kind, method), rows in scores.items():
        success = 100 * float(np.mean([row.success for row in rows]))
        kept = float(np.mean([row.kept for row in rows]))
        logging.info("| %s | %s | %d | %.0f %% | %.1f dB |", kind, method, len(rows), success, kept)


if __name__ == "__main__":
    main()
