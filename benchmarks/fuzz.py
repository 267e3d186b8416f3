"""Random graphs of edits: each gives a finite result that keeps the laws, or one of our sentences.

    python dev.py python -- benchmarks/fuzz.py --count 2000
    python dev.py python -- benchmarks/fuzz.py --count 2000 --transformers

A graph is one to three edits with windows, scales and blends of any prompts, at any size, sampler
and schedule, also of an inverted photograph, beside up to two other nodes' patches. The laws: the
source is the picture of the plain graph (or the very photograph), the same words change nothing,
and an edit of no step is the plain picture of its prompt. Where a graph amplifies rounding, so much
is granted. With --transformers it is on one of the tiny transformers, which is edited in any mode
and in any blocks, or given a prompt whose words have weights: weights of 1 change nothing at all,
and it is all the same how brackets say them.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis.strategies import SearchStrategy
from rich.console import Console

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path += [str(REPOSITORY / "tests" / "support"), str(REPOSITORY)]

from host_run import load_host  # noqa: E402
from random_graphs.cases import FAMILIES, OFTEN, cases  # noqa: E402
from random_graphs.drawing import each  # noqa: E402
from random_graphs.outcome import DEFECT, SENTENCE, Outcome, outcome  # noqa: E402
from random_graphs.transformer_cases import transformer_cases  # noqa: E402
from random_graphs.transformer_outcome import outcome as transformer_outcome  # noqa: E402
from random_graphs.transformers import KINDS  # noqa: E402
from random_graphs.transformers import OFTEN as TRANSFORMERS  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, help="other graphs than the same ones every time")
    parser.add_argument("--transformers", action="store_true", help="instead of UNets")
    parser.add_argument("--families", nargs="+", choices=(*FAMILIES, *KINDS))
    parser.add_argument("--largest", type=int, help="edge of the latent, or in patches (20, 7)")
    return parser.parse_args()


def graphs_of(options: argparse.Namespace) -> tuple[SearchStrategy, Callable[[Any], Outcome]]:
    """The graphs to draw, and what tells what becomes of one."""
    if options.transformers:
        families = tuple(options.families or TRANSFORMERS)
        return transformer_cases(families, options.largest or 7), transformer_outcome
    return cases(tuple(options.families or OFTEN), options.largest or 20), outcome


def kind_of(found: Outcome) -> str:
    """A sentence without its numbers and names, to count it by."""
    if found.kind != SENTENCE:
        return found.kind
    return f"{found.kind}: " + re.sub(r"'[^']*'|\"[^\"]*\"|[\d.]+", "…", found.text)[:110]


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    load_host()
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    logging.disable(logging.ERROR)  # the host logs every sentence with its traceback
    drawn, judged = graphs_of(options)
    console, counts, kinds = Console(stderr=True, soft_wrap=True), Counter(), Counter()
    start = time.perf_counter()

    def look(case: Any) -> None:
        try:
            found = judged(case)
        except Exception as error:  # one graph must not end the others
            found = Outcome(DEFECT, f"{type(error).__name__}: {error}")
        counts[found.kind] += 1
        kinds[kind_of(found)] += 1
        if found.kind == DEFECT:
            console.print(f"DEFECT {found.text}\n  {case}", markup=False, emoji=False)
        if sum(counts.values()) % 20 == 0:
            console.print(f"{dict(counts)} after {time.perf_counter() - start:.0f} s", markup=False)

    each(drawn, options.count, look, options.seed)
    out = Console(soft_wrap=True)
    out.print(f"{sum(counts.values())} graphs: {dict(counts)}", markup=False)
    for kind, count in kinds.most_common():
        out.print(f"{count:5d} {kind}", markup=False)
    if counts[DEFECT]:
        sys.exit("There are defects.")


if __name__ == "__main__":
    main()
