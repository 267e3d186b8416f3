"""Make pairs of pictures for instruction training with this pack's own Prompt-to-Prompt.

The recipe of InstructPix2Pix (arXiv:2211.09800, section 3.1): every pair is sampled with random
shares of attention injection, and kept if a judge finds source and target in it, and the same place
where only a colour or a texture changed. Writes shards `pairs_0000.pt` of {instructions, sources,
targets}: what the encoder makes of the source picture, and the target's latent.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from host import use_host
from instructions import KINDS, Instruction, sample_instruction, sample_source
from judge import Verdict, judge
from torch import Tensor
from world import Prompt

use_host()
sys.path.append(str(Path(__file__).resolve().parents[1]))
from headless import Pack  # noqa: E402

SAME_PLACE = 0.75  # overlap of the object before and after


class Studio:
    """The demo model and the nodes that edit with it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.pack = args, Pack()
        self.model, self.clip, self.vae = self.pack.demo_model()

    def sample(self, made: list[Instruction], rng: Random) -> Tensor:
        """Latents (seeds, 1 + edits, 4, 16, 16) of a source and what the edits make of it."""
        edits = [self._edit(instruction, rng) for instruction in made]
        names = ["edit", *(f"edit_{number}" for number in range(2, len(edits) + 1))]
        model, positive, latent, _ = self.pack.node(
            "P2PAttentionController",
            model=self.model,
            latent={"samples": torch.zeros(self.args.seeds, 4, 16, 16)},
            record_maps=False,
            **dict(zip(names, edits, strict=True)),
        )
        negative = self.pack.text(self.clip, "")
        seed, cfg = rng.randrange(2**32), rng.uniform(4, 8)
        samples = self.pack.sample(
            model, positive, negative, latent, seed, self.args.steps, cfg, "ddim", "ddim_uniform"
        )["samples"]
        return samples.unflatten(0, (-1, 1 + len(edits)))

    def _edit(self, made: Instruction, rng: Random) -> Any:
        """An edit with random shares of injection; a new shape needs more freedom."""
        node = "P2PRefine" if made.kind == "texture" else "P2PWordSwap"
        most = 0.3 if made.kind == "shape" else 0.6
        return self.pack.node(
            node,
            clip=self.clip,
            source_prompt=made.source.text,
            target_prompt=made.target.text,
            cross_replace_steps=rng.uniform(0.1, 0.9),
            self_replace_steps=rng.uniform(0.0, most),
        )[0]

    def decode(self, samples: Tensor) -> Tensor:
        """Pictures (B, H, W, 3) in [0, 1]."""
        return self.vae.decode(samples).clamp(0, 1)


def shows(verdict: Verdict, prompt: Prompt) -> bool:
    """Whether a picture shows just what a one-object prompt says."""
    noun = prompt.nouns[0]
    found = (verdict.shape, verdict.colour, verdict.texture, verdict.background)
    return len(verdict.objects) == 1 and found == (
        noun.shape,
        noun.colour,
        noun.texture,
        prompt.background,
    )


def in_place(made: Instruction, before: Verdict, after: Verdict) -> bool:
    """Whether the object stayed where it was; a new shape need only stay near."""
    if before.main is None or after.main is None:
        return False
    a, b = before.main, after.main
    if made.kind == "shape":
        return float(np.hypot(a.x - b.x, a.y - b.y)) < 10
    return bool((a.mask & b.mask).sum() > SAME_PLACE * (a.mask | b.mask).sum())


def make_shard(studio: Studio, rng: Random) -> dict[str, Any]:
    """Pairs until a shard is full."""
    start, tried = time.monotonic(), 0
    kept: list[tuple[Instruction, Tensor, Tensor]] = []
    while len(kept) < studio.args.size:
        source = sample_source(rng, held_out=False)
        asked_for = [sample_instruction(rng, source, kind, held_out=False) for kind in KINDS]
        made = [instruction for instruction in asked_for if instruction is not None]
        for samples in studio.sample(made, rng):
            pictures = studio.decode(samples)
            verdicts = [judge(p) for p in pictures.mul(255).round().byte().cpu().numpy()]
            encoded = studio.vae.encode(pictures[:1])[0].half()
            tried += len(made)
            for number, (asked, after) in enumerate(zip(made, verdicts[1:], strict=True), 1):
                right = shows(verdicts[0], source) and shows(after, asked.target)
                if right and in_place(asked, verdicts[0], after):
                    kept.append((asked, encoded, samples[number].half()))
    speed = len(kept) / (time.monotonic() - start)
    logging.info("%d of %d pairs kept, %.2f a second", len(kept), tried, speed)
    instructions, sources, targets = zip(*kept, strict=True)
    return {
        "instructions": instructions,
        "sources": torch.stack(sources),
        "targets": torch.stack(targets),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("pairs"))
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--size", type=int, default=256, help="pairs in a shard")
    parser.add_argument("--seeds", type=int, default=3, help="sources sampled together")
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", force=True)
    logging.getLogger().setLevel(logging.INFO)
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    studio = Studio(args)
    for index in range(args.first, args.first + args.shards):
        with torch.inference_mode():
            shard = make_shard(studio, Random(f"pairs {index}"))
        torch.save(shard, args.folder / f"part_{index:04d}")
        (args.folder / f"part_{index:04d}").rename(args.folder / f"pairs_{index:04d}.pt")


if __name__ == "__main__":
    main()
