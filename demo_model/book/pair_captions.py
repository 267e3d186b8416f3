"""Write caption triples of the picture book's grammar, for `python -m p2p_pairs make`.

`python -m book.pair_captions --count 2000 --out captions.jsonl`: the kinds of edits in turn, each
triple once, none of a combination that training never shows. `--kinds` chooses among them.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from book.instructions import KIND_NAMES, sample_instruction

PATIENCE = 2000  # draws without a new triple after which a kind is exhausted


def triples(count: int, seed: int, kinds: Sequence[str]) -> Iterator[dict[str, str]]:
    """Lines of a caption file; fewer where the grammar has no more."""
    rng, seen, left, number = Random(f"captions {seed}"), set(), list(kinds), 0
    while len(seen) < count and left:
        kind = left[number % len(left)]
        number += 1
        for _ in range(PATIENCE):
            made = sample_instruction(rng, kind, held_out=False)
            line = (made.case.source.text, made.text, made.case.target.text)
            if line not in seen:
                seen.add(line)
                yield dict(zip(("source", "instruction", "edited"), line, strict=True), kind=kind)
                break
        else:
            logging.info("There are no more of kind %r.", kind)
            left.remove(kind)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("captions.jsonl"))
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KIND_NAMES, default=list(KIND_NAMES))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    lines = [json.dumps(line) + "\n" for line in triples(args.count, args.seed, args.kinds)]
    args.out.write_text("".join(lines), encoding="utf-8")
    logging.info("%d captions in %s", len(lines), args.out)


if __name__ == "__main__":
    main()
