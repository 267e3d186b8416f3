"""Measure the picture book's variant for instructions on painted photographs, judged.

`python -m book.evaluate_instruct --count 100` (in `demo_model/`). The photographs are scenes that
training never showed; "kept" is the PSNR of what the instruction should leave alone.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from pathlib import Path
from random import Random

import numpy as np
import torch

from book.edits import Pack, Score, score
from book.evaluate import sheet
from book.instructions import KIND_NAMES, Instruction, sample_instruction
from book.networks import CONFIG
from book.world import Scene, Thing, render


class Editor:
    """The variant for instructions and the nodes that it needs."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.pack = args, Pack()
        self.model, self.clip, self.vae = CONFIG.load_demo_model(
            args.weights, variant=CONFIG.INSTRUCTIONS
        )

    def text(self, prompt: str) -> list:
        """A conditioning."""
        return self.pack.text(self.clip, prompt)

    @torch.inference_mode()
    def edit(self, picture: np.ndarray, instruction: str, seed: int) -> np.ndarray:
        """The picture (H, W, 3) uint8 after the instruction."""
        image = torch.from_numpy(picture.copy())[None].float() / 255
        model, positive, negative, *_, latent = self.pack.node(
            "IP2PConditioning", model=self.model, positive=self.text(instruction),
            negative=self.text(""), vae=self.vae, image=image, image_cfg=self.args.image_cfg,
        )  # fmt: skip
        samples = self.pack.host.common_ksampler(
            model, seed, self.args.steps, self.args.cfg, "euler", "normal", positive, negative,
            latent,
        )[0]["samples"]  # fmt: skip
        return self.vae.decode(samples)[0].clamp(0, 1).mul(255).round().byte().cpu().numpy()


def photograph(made: Instruction, rng: Random) -> np.ndarray:
    """A painted scene of the instruction's source prompt."""
    noun, setting = made.case.source.nouns[0], made.case.source.setting or "grass"
    side = rng.randint(52, 76)
    x, y = 64 + rng.uniform(-20, 20), rng.uniform(102, 118)
    thing = Thing(noun.thing, noun.colour, None, None, x, y, side)
    return render(
        Scene((thing,), setting, horizon=rng.uniform(68, 90), extras=rng.randrange(2**31))
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, default=CONFIG.INSTRUCT_PATH)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--image-cfg", type=float, default=1.5)
    parser.add_argument("--sheet", type=Path, help="also write a sheet of the first edits")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger().setLevel(logging.INFO)
    torch.set_num_threads(1)
    rng, editor = Random(21), Editor(args)
    scores: dict[str, list[Score]] = defaultdict(list)
    pictures, texts = [], []
    for number in range(args.count):
        kind = KIND_NAMES[number % len(KIND_NAMES)]
        made = sample_instruction(rng, kind, held_out=True)
        photo = photograph(made, rng)
        edited = editor.edit(photo, made.text, number)
        result = score(photo, edited, made.case)
        scores[kind].append(result)
        scores["all"].append(result)
        pictures += [photo, edited]
        texts += ["photograph", made.text]
    if args.sheet:
        sheet(np.stack(pictures[:48]), texts[:48], 8).save(args.sheet, quality=90)
    logging.info("| kind | n | success | kept |\n|---|---|---|---|")
    for kind, rows in scores.items():
        success = 100 * float(np.mean([row.success for row in rows]))
        kept = float(np.mean([row.kept for row in rows]))
        logging.info("| %s | %d | %.0f %% | %.1f dB |", kind, len(rows), success, kept)


if __name__ == "__main__":
    main()
