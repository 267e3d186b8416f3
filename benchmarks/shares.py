"""How success and what is kept trade with the shares of injection and the local blend's threshold.

    python dev.py python -- benchmarks/shares.py --count 40

For choosing: the prompts are combinations that training showed and the noises are its own, so that
nothing is chosen on what `fidelity.py` measures. Columns as there.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

sys.path.append(str(Path(__file__).resolve().parents[1] / "demo_model"))
from book.edits import Case, Score, blended, cases, score, shows
from book.judge import judge
from book.studio import Studio
from fidelity import NO_CONTROL, table

CROSS = (0.4, 0.6, 0.8)
SELF = (0.2, 0.4, 0.6, 0.8)
THRESHOLDS = (0.1, 0.15, 0.2, 0.3)
FIRST_SEED = 100_000


def variants(case: Case) -> dict[str, Case]:
    """The case with every pair of shares, and with its own shares under a local blend."""
    shares = {
        f"{cross:g}, {self_:g}": replace(case, cross=cross, self_=self_)
        for cross in CROSS
        for self_ in SELF
    }
    local = blended(case)
    assert local.blend is not None
    blends = {
        f"{case.cross:g}, {case.self_:g}, blend {threshold:g}": replace(
            local, blend=local.blend._replace(threshold=threshold)
        )
        for threshold in THRESHOLDS
    }
    return {**shares, **blends}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=40, help="edits, the kinds in turn")
    parser.add_argument("--kinds", nargs="+", help="only these")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    studio = Studio()
    scores: dict[tuple[str, str], list[Score]] = defaultdict(list)
    work = cases(options.count, seed=FIRST_SEED, held_out=False)
    for number, case in enumerate(track(work, console=Console(stderr=True))):
        if options.kinds and case.kind not in options.kinds:
            continue
        seed, tried = FIRST_SEED + number, variants(case)
        source, *edits = studio.pictures(list(tried.values()), seed)
        if not shows(judge(source), case.source):
            continue
        made = {
            NO_CONTROL: studio.free(case.target.text, seed),
            **dict(zip(tried, edits, strict=True)),
        }
        for name, picture in made.items():
            scores[case.kind, name].append(score(source, picture, case))
    Console(width=110).print(table(dict(sorted(scores.items())), "shares of cross and self"))


if __name__ == "__main__":
    main()
