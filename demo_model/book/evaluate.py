"""Measure the exported picture book through the host: sample prompts, decode, judge.

`python -m book.evaluate` (in `demo_model/`) prints the table of the model card.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image, ImageDraw

from book.judge import Verdict, judge_pictures
from book.networks import CONFIG
from book.things import COLOURS, DRESSED, DYED, KINDS
from book.world import IMAGE_SIZE, SETTINGS, Noun, Prompt, held_out_prompts

import comfy.sample  # isort: skip  (after `networks`, which prepares the host)


class Sampler:
    """The picture book as the host loads it, with fixed sampling settings."""

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
        latent = torch.zeros(len(texts), 8, IMAGE_SIZE // 8, IMAGE_SIZE // 8)
        samples = comfy.sample.sample(
            self.model, comfy.sample.prepare_noise(latent, seed), self.args.steps, self.args.cfg,
            self.args.sampler, self.args.scheduler, self.conditioning(texts),
            self.conditioning([""]), latent, seed=seed, disable_pbar=True,
        )  # fmt: skip
        return self.vae.decode(samples).clamp(0, 1).mul(255).round().byte().cpu().numpy()

    def all_pictures(self, prompts: list[Prompt], seed: int = 0) -> np.ndarray:
        """The prompts' pictures, sampled in batches."""
        size = self.args.batch
        parts = [
            self.pictures([prompt.text for prompt in prompts[start : start + size]], seed + start)
            for start in range(0, len(prompts), size)
        ]
        return np.concatenate(parts)

    def judge_all(self, prompts: list[Prompt], seed: int = 0) -> list[Verdict]:
        """Verdicts on the prompts' pictures."""
        return judge_pictures(self.all_pictures(prompts, seed))


def report(name: str, checks: list[bool]) -> None:
    """Log one line of the table."""
    logging.info("%-44s %5.1f %% of %d", name, 100 * float(np.mean(checks)), len(checks))


def evaluate_held_out(sampler: Sampler, count: int) -> None:
    """One thing in a setting: combinations that training never showed."""
    prompts = held_out_prompts(count)
    pairs = list(zip(prompts, sampler.judge_all(prompts), strict=True))
    thing = [v.thing == p.nouns[0].thing for p, v in pairs]
    report("held out: thing", thing)
    report("held out: setting", [v.setting == p.setting for p, v in pairs])
    coloured = [(p, v) for p, v in pairs if p.nouns[0].colour]
    report("held out: colour", [v.colour == p.nouns[0].colour for p, v in coloured])
    everything = [
        right and v.setting == p.setting and p.nouns[0].colour in (None, v.colour)
        for right, (p, v) in zip(thing, pairs, strict=True)
    ]
    report("held out: all of them", everything)
    plain = [not (v.hat or v.scarf or v.autumn or v.pencil) for _, v in pairs]
    report("held out: nothing that was not asked for", plain)
    for name in KINDS:
        rows = [
            right for right, (p, _) in zip(thing, pairs, strict=True) if p.nouns[0].thing == name
        ]
        report(f"  {name}", rows)


def random_prompt(rng: Random, kinds: tuple[str, ...]) -> Prompt:
    """One thing, coloured where it can be, in a setting."""
    kind = rng.choice(kinds)
    colour = rng.choice(list(COLOURS)) if kind in DYED else None
    return Prompt((Noun(kind, colour),), rng.choice(list(SETTINGS)))


def evaluate_words(sampler: Sampler, count: int) -> None:
    """Clothes, season, style, sizes, sides, the noun alone, two things."""
    rng = Random(4)
    for clothes in ("hat", "scarf"):
        prompts = [random_prompt(rng, DRESSED).with_noun(clothes=clothes) for _ in range(count)]
        verdicts = sampler.judge_all(prompts, 1000)
        report(f"'wearing a {clothes}' is shown", [getattr(v, clothes) for v in verdicts])
        same = [v.thing == p.nouns[0].thing for p, v in zip(prompts, verdicts, strict=True)]
        report(f"'wearing a {clothes}' keeps the thing", same)
    every = tuple(KINDS)
    prompts = [
        replace(random_prompt(rng, every), setting="grass", autumn=True) for _ in range(count)
    ]
    report("'in autumn' is shown", [v.autumn for v in sampler.judge_all(prompts, 2000)])
    prompts = [replace(random_prompt(rng, every), pencil=True) for _ in range(count)]
    report("'a pencil drawing of' is shown", [v.pencil for v in sampler.judge_all(prompts, 3000)])
    small = [random_prompt(rng, every).with_noun(size="small") for _ in range(count)]
    report("'small' is under 46 px", [v.side < 46 for v in sampler.judge_all(small, 4000)])
    big = [prompt.with_noun(size="big") for prompt in small]
    report("'big' is over 76 px", [v.side > 76 for v in sampler.judge_all(big, 4000)])
    for side in ("left", "right"):
        prompts = [replace(random_prompt(rng, every), side=side) for _ in range(count)]
        centres = [v.centre[0] for v in sampler.judge_all(prompts, 5000)]
        report(f"'on the {side}' is there", [(x < 64) == (side == "left") for x in centres])
    alone = [Prompt((Noun(every[i % len(every)]),)) for i in range(count)]
    verdicts = sampler.judge_all(alone, 6000)
    report(
        "the noun alone: thing",
        [v.thing == p.nouns[0].thing for p, v in zip(alone, verdicts, strict=True)],
    )
    dyed = [(p, v) for p, v in zip(alone, verdicts, strict=True) if p.nouns[0].thing in DYED]
    report(
        "the noun alone: its own colour",
        [v.colour == KINDS[p.nouns[0].thing].colour for p, v in dyed],
    )
    two = [
        Prompt(tuple(map(Noun, rng.sample(every, 2))), rng.choice(list(SETTINGS)))
        for _ in range(count)
    ]
    found = list(zip(two, sampler.judge_all(two, 7000), strict=True))
    named = [{noun.thing for noun in p.nouns} for p, _ in found]
    report(
        "two things: at least one",
        [bool(n & v.pair) for n, (_, v) in zip(named, found, strict=True)],
    )
    report("two things: both", [n == v.pair for n, (_, v) in zip(named, found, strict=True)])


def sheet(pictures: np.ndarray, texts: list[str], columns: int) -> Image.Image:
    """Pictures in rows, each with its prompt under it."""
    side, line = IMAGE_SIZE + 6, 28
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * side + 6, rows * (side + line)), "white")
    draw = ImageDraw.Draw(page)
    for index, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        x, y = 6 + index % columns * side, 4 + index // columns * (side + line)
        page.paste(Image.fromarray(picture), (x, y))
        words, lines = text.split(), [""]
        for word in words:
            if len(lines[-1]) + len(word) > 21:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
        draw.multiline_text((x + 1, y + IMAGE_SIZE), "\n".join(lines[:2]), fill="black", spacing=1)
    return page


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Options of the programs that sample."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--weights", type=Path, default=CONFIG.WEIGHTS_PATH)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=6.0)
    parser.add_argument("--sampler", default="euler")
    parser.add_argument("--scheduler", default="normal")
    parser.add_argument("--batch", type=int, default=20)
    return parser


def main() -> None:
    """Command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--count", type=int, default=300, help="held-out prompts")
    parser.add_argument("--more", type=int, default=60, help="prompts for each further test")
    parser.add_argument("--sheet", type=Path, help="also write a sheet of samples")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger().setLevel(logging.INFO)
    torch.set_num_threads(1)
    sampler = Sampler(args)
    if args.sheet:
        prompts = held_out_prompts(len(KINDS) + 7, seed=3)
        pictures = sampler.all_pictures(prompts, seed=5)
        sheet(pictures, [prompt.text for prompt in prompts], 8).save(args.sheet, quality=90)
    if args.count:
        evaluate_held_out(sampler, args.count)
    if args.more:
        evaluate_words(sampler, args.more)


if __name__ == "__main__":
    main()
