"""Make pairs of pictures for instruction training with this pack's own Prompt-to-Prompt.

The recipe of InstructPix2Pix (arXiv:2211.09800, section 3.1): every pair is sampled with random
shares of attention injection, and kept if the judge finds source and target in it and what should
stay has stayed. Writes shards `pairs_0000.pt` of {instructions, kinds, sources, targets}: what the
encoder makes of the source picture, and the target's latent.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from book.edits import OUTSIDE, Case, score, shows
from book.instructions import KIND_NAMES, Instruction, sample_instruction
from book.judge import judge_pictures
from book.networks import CONFIG
from book.studio import EMPTY, Studio

LEAST_KEPT = 22.0  # dB outside the things
SAME_PLACE = 0.75  # overlap of the thing before and after, where the rest changes


def freer(case: Case, rng: Random) -> Case:
    """The case with random shares of injection; another outline needs more freedom."""
    most = 0.35 if case.kind == "thing" else 0.7
    return replace(case, cross=rng.uniform(0.3, 0.9), self_=rng.uniform(0.1, most))


def sample(studio: Studio, made: list[Instruction], rng: Random, seeds: int) -> Tensor:
    """Latents (seeds, 2, 8, 16, 16) of source and edit; all of one source prompt's edits."""
    rows = []
    for one in made:
        edit = studio.edit(freer(one.case, rng))
        latent = {"samples": EMPTY["samples"].repeat(seeds, 1, 1, 1)}
        run = studio.pack.control(studio.model, latent, [edit])
        samples = studio.pack.sample(
            run.model, run.positive, studio.text(""), run.latent, rng.randrange(2**32),
            studio.steps, rng.uniform(4, 8), "ddim", "ddim_uniform",
        )["samples"]  # fmt: skip
        rows.append(samples.unflatten(0, (-1, 2)))
    return torch.cat(rows)


def stayed(pictures: np.ndarray, case: Case, before: np.ndarray, after: np.ndarray) -> bool:
    """Whether an edit left alone what it should: pictures (2, H, W, 3), masks (H, W)."""
    if case.stays == OUTSIDE:
        return score(pictures[0], pictures[1], case).kept > LEAST_KEPT
    return bool((before & after).sum() > SAME_PLACE * (before | after).sum())


def make_shard(studio: Studio, index: int, size: int, seeds: int) -> dict[str, Any]:
    """Pairs until a shard is full; the kinds in turn, every shard from another one on."""
    rng, start, tried, number = Random(f"pairs {index}"), time.monotonic(), 0, index
    kept: list[tuple[Instruction, Tensor, Tensor]] = []
    while len(kept) < size:
        made = sample_instruction(rng, KIND_NAMES[number % len(KIND_NAMES)], held_out=False)
        number += 1
        for pair in sample(studio, [made], rng, seeds):
            tried += 1
            pictures = studio.decoded(pair)
            before, after = judge_pictures(pictures)
            right = shows(before, made.case.source) and shows(after, made.case.target)
            if right and stayed(pictures, made.case, before.mask, after.mask):
                pixels = torch.from_numpy(pictures[:1]).float() / 255
                kept.append((made, studio.vae.encode(pixels)[0].half(), pair[1].half()))
    speed = len(kept) / (time.monotonic() - start)
    logging.info("%d of %d pairs kept, %.2f a second", len(kept), tried, speed)
    instructions, sources, targets = zip(*kept, strict=True)
    return {
        "instructions": [one.text for one in instructions],
        "kinds": [one.case.kind for one in instructions],
        "sources": torch.stack(sources),
        "targets": torch.stack(targets),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=CONFIG.WEIGHTS_PATH)
    parser.add_argument("--folder", type=Path, default=Path("pairs"))
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--size", type=int, default=128, help="pairs in a shard")
    parser.add_argument("--seeds", type=int, default=4, help="pairs sampled together")
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", force=True)
    logging.getLogger().setLevel(logging.INFO)
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    studio = Studio(args.weights, args.steps)
    for index in range(args.first, args.first + args.shards):
        with torch.inference_mode():
            shard = make_shard(studio, index, args.size, args.seeds)
        torch.save(shard, args.folder / f"part_{index:04d}")
        (args.folder / f"part_{index:04d}").rename(args.folder / f"pairs_{index:04d}.pt")


if __name__ == "__main__":
    main()
