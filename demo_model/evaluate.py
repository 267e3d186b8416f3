"""Measure the exported model through the host: sample prompts, decode, judge.

`python demo_model/evaluate.py` prints the table of the model card.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from judge import Found, Verdict, judge
from networks import CONFIG
from PIL import Image
from world import BACKGROUNDS, COLOURS, IMAGE_SIZE, SHAPES, TEXTURES, Noun, Prompt, held_out_prompts

import comfy.sample  # isort: skip  (after `networks`, which prepares the host)


class Sampler:
    """The demo model as the host loads it, with fixed sampling settings."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.model, self.clip, self.vae = CONFIG.load_demo_model(args.weights)

    def conditioning(self, texts: list[str]) -> list:
        """One conditioning whose rows are the prompts: (B, 77, C)."""
        encoded = [
            self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text)) for text in texts
        ]
        return [[torch.cat([entry[0][0] for entry in encoded]), {**encoded[0][0][1]}]]

    @torch.inference_mode()
    def pictures(self, texts: list[str], seed: int) -> np.ndarray:
        """One picture for each prompt: (B, H, W, 3) uint8; as EmptyLatentImage and KSampler."""
        latent = torch.zeros(len(texts), 4, IMAGE_SIZE // 8, IMAGE_SIZE // 8)
        samples = comfy.sample.sample(
            self.model, comfy.sample.prepare_noise(latent, seed), self.args.steps, self.args.cfg,
            self.args.sampler, self.args.scheduler, self.conditioning(texts),
            self.conditioning([""]), latent, seed=seed, disable_pbar=True,
        )  # fmt: skip
        decoded = self.vae.decode(samples)
        return decoded.clamp(0, 1).mul(255).round().byte().cpu().numpy()

    def judge_all(self, prompts: list[Prompt], seed: int = 0) -> list[Verdict]:
        """Verdicts of the prompts' pictures, sampled in batches."""
        verdicts: list[Verdict] = []
        for start in range(0, len(prompts), self.args.batch):
            texts = [prompt.text for prompt in prompts[start : start + self.args.batch]]
            verdicts += [judge(picture) for picture in self.pictures(texts, seed + start)]
        return verdicts


def fits(noun: Noun, found: Found) -> bool:
    """True when an object has the noun's shape and colour."""
    return found.shape == noun.shape and found.colour == noun.colour


def share(checks: list[bool]) -> str:
    """'93.5 % of 200'."""
    return f"{100 * sum(checks) / len(checks):5.1f} % of {len(checks)}"


def report(name: str, checks: list[bool]) -> None:
    """Log one line of the table."""
    logging.info("%-52s %s", name, share(checks))


def evaluate_held_out(sampler: Sampler, count: int) -> None:
    """Single objects whose combination training never showed, and the same with an adjective."""
    prompts = held_out_prompts(count)
    verdicts = sampler.judge_all(prompts)
    pairs = list(zip(prompts, verdicts, strict=True))
    checks: dict[str, Callable[[Prompt, Verdict], bool]] = {
        "shape": lambda p, v: v.shape == p.nouns[0].shape,
        "object colour": lambda p, v: v.colour == p.nouns[0].colour,
        "background colour": lambda p, v: v.background == p.background,
        "plain, as no texture is named": lambda p, v: not v.textured,
        "exactly one object": lambda p, v: len(v.objects) == 1,
    }
    for name, check in checks.items():
        report(f"held-out combination: {name}", [check(p, v) for p, v in pairs])
    whole = list(checks.values())[:3]
    report("held-out combination: all three", [all(c(p, v) for c in whole) for p, v in pairs])
    for shape in SHAPES:
        rows = [v.shape == shape for p, v in pairs if p.nouns[0].shape == shape]
        report(f"  shape {shape}", rows)


def evaluate_adjectives(sampler: Sampler, count: int) -> None:
    """Texture and size words on held-out combinations."""
    plain = held_out_prompts(count, seed=1)
    for texture in TEXTURES:
        verdicts = sampler.judge_all([p.with_noun(texture=texture) for p in plain])
        report(f"'{texture}' is shown", [v.texture == texture for v in verdicts])
        pairs = zip(plain, verdicts, strict=True)
        report(
            f"'{texture}' keeps shape and colour",
            [v.main is not None and fits(p.nouns[0], v.main) for p, v in pairs],
        )
    radii = {}
    for size in ("small", "big"):
        verdicts = sampler.judge_all([p.with_noun(size=size) for p in plain])
        radii[size] = [v.main.radius if v.main else 0.0 for v in verdicts]
    report("'small' gives a radius under 30 px", [r < 30 for r in radii["small"]])
    report("'big' gives a radius over 43 px", [r > 43 for r in radii["big"]])


def evaluate_pairs(sampler: Sampler, count: int) -> None:
    """Two objects on a background; the first named should be on the left."""
    rng = Random(2)
    prompts = []
    for _ in range(count):
        background = rng.choice(list(BACKGROUNDS))
        colours = rng.sample([c for c in COLOURS if c != background], 2)
        nouns = tuple(Noun(rng.choice(SHAPES), colour) for colour in colours)
        prompts.append(replace(Prompt(nouns), background=background))
    pairs = list(zip(prompts, sampler.judge_all(prompts), strict=True))
    report("two objects: both are there", [len(v.objects) == 2 for _, v in pairs])
    right = [
        len(v.objects) == 2 and all(map(fits, p.nouns, v.objects))  # of equal length
        for p, v in pairs
    ]
    report("two objects: both of the right shape and colour", right)


def sample_sheet(sampler: Sampler, path: Path) -> None:
    """A sheet of 32 held-out samples as JPEG."""
    prompts = held_out_prompts(32, seed=3)
    textures = (None, None, None, "striped")
    texts = [p.with_noun(texture=textures[i % 4]).text for i, p in enumerate(prompts)]
    pictures = sampler.pictures(texts, seed=5)
    side = IMAGE_SIZE + 4
    sheet = Image.new("RGB", (8 * side + 4, 4 * side + 4), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, 8)
        sheet.paste(Image.fromarray(picture), (4 + column * side, 4 + row * side))
    sheet.save(path, quality=88)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=CONFIG.WEIGHTS_PATH)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--more", type=int, default=60, help="prompts for each further test")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--cfg", type=float, default=6.0)
    parser.add_argument("--sampler", default="euler")
    parser.add_argument("--scheduler", default="normal")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="also write a sheet of samples")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger().setLevel(logging.INFO)
    torch.set_num_threads(args.threads)
    sampler = Sampler(args)
    if args.sheet:
        sample_sheet(sampler, args.sheet)
    if args.count:
        evaluate_held_out(sampler, args.count)
    if args.more:
        evaluate_adjectives(sampler, args.more)
        evaluate_pairs(sampler, args.more)


if __name__ == "__main__":
    main()
