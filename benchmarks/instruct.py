"""Do instructions work, and what do the two guidance scales trade? The demo model, judged.

    python dev.py python -- benchmarks/instruct.py --count 100 --curve docs/ip2p_curve.png

Photographs are painted for this benchmark; what an instruction makes of them is a combination of
shape, colour and background that training never showed. Columns, for every pair of scales:

- success: the judge finds what the instruction asks for, and nothing else changed;
- outside: against the photograph, away from its object (not for a new background);
- place: overlap (IoU) of the object's region before and after, where only its looks change.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from demo_edits import Pack, arrived, outside, psnr
from PIL import Image
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

from instructions import KINDS, Instruction, sample_instruction, sample_source  # isort: skip  (found by demo_edits)
from judge import judge  # isort: skip
from world import IMAGE_SIZE, Scene, Thing, render  # isort: skip

TEXT_CFGS = (2.0, 3.5, 5.0, 7.5)
IMAGE_CFGS = (1.0, 1.5, 2.0, 3.0)


class Result(NamedTuple):
    success: bool
    outside: float | None
    place: float | None


def held_out_instruction(rng: Random, number: int) -> Instruction:
    """All kinds in turn."""
    while True:
        source = sample_source(rng, held_out=True)
        made = sample_instruction(rng, source, KINDS[number % len(KINDS)], held_out=True)
        if made is not None:
            return made


def photograph(made: Instruction, rng: Random) -> np.ndarray:
    """A picture of the instruction's source prompt, (H, W, 3) uint8."""
    noun, radius = made.source.nouns[0], rng.uniform(30, 42)
    x, y = (rng.uniform(radius + 8, IMAGE_SIZE - radius - 8) for _ in range(2))
    thing = Thing(noun.shape, noun.colour or "", None, None, None, x, y, radius)
    return render(Scene((thing,), made.source.background or ""))


class Studio:
    """The demo model's variant for instructions."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.pack = options, Pack()
        parts = self.pack.demo_model("instructions")
        self.model, self.clip, self.vae = parts

    def text(self, prompt: str) -> list:
        return self.pack.text(self.clip, prompt)

    def edit(
        self, picture: np.ndarray, instruction: str, cfg: float, image_cfg: float, seed: int
    ) -> np.ndarray:
        """The picture after an instruction, (H, W, 3) uint8."""
        pixels = torch.from_numpy(picture.copy())[None].float() / 255
        model, positive, negative, _, latent = self.pack.node(
            "IP2PConditioning", model=self.model, vae=self.vae, image=pixels,
            positive=self.text(instruction), negative=self.text(""), image_cfg=image_cfg,
        )  # fmt: skip
        samples = self.pack.sample(model, positive, negative, latent, seed, self.options.steps, cfg)
        [made] = (
            self.pack.decode(self.vae, samples).clamp(0, 1).mul(255).round().byte().cpu().numpy()
        )
        return made


def judged(made: Instruction, before: np.ndarray, after: np.ndarray) -> Result:
    """Whether the instruction was followed, and what else changed."""
    old, new = judge(before), judge(after)
    if old.mask is None or new.mask is None:
        return Result(False, None, None)
    overlap = float((old.mask & new.mask).sum() / (old.mask | new.mask).sum())
    away = outside(old.mask, new_shape=made.kind == "shape")
    around = None if made.kind == "background" else psnr(before[away], after[away])
    return Result(arrived(new, made.target), around, None if made.kind == "shape" else overlap)


def mean(values: list[Any]) -> float:
    return statistics.fmean([value for value in values if value is not None] or [0.0])


def row(name: tuple[str, ...], results: list[Result]) -> list[str]:
    success, around, place = (mean(list(column)) for column in zip(*results, strict=True))
    near = f"{around:.1f} dB" if around else ""
    return [*name, f"{100 * success:.0f} %", near, f"{place:.2f}" if place else ""]


def draw_curve(results: dict[tuple[float, float], list[Result]], path: Path) -> None:
    """Success against what stays outside, a line for every image scale."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for image_cfg in IMAGE_CFGS:
        chosen = [results[text_cfg, image_cfg] for text_cfg in TEXT_CFGS]
        x = [mean([result.outside for result in rows]) for rows in chosen]
        y = [100 * mean([result.success for result in rows]) for rows in chosen]
        axes.plot(x, y, marker="o", label=f"$s_I$ = {image_cfg:g}")
        for text_cfg, *point in zip(TEXT_CFGS, x, y, strict=True):
            axes.annotate(f"{text_cfg:g}", point, (3, 3), textcoords="offset points", fontsize=8)
    axes.set(xlabel="outside PSNR, dB", ylabel="success, %")
    axes.set_title("Text guidance $s_T$ (numbers) and image guidance $s_I$", fontsize=10)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="instructions")
    parser.add_argument("--curve-count", type=int, default=40, help="for every pair of scales")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--image-cfg", type=float, default=1.5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--curve", type=Path, help="also measure the trade-off, and plot it here")
    parser.add_argument("--pictures", type=Path, help="also write the first edits as a sheet")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    studio, console = Studio(options), Console(width=110)
    rng = Random("held-out instructions")
    made = [held_out_instruction(rng, i) for i in range(options.count)]
    photographs = [photograph(instruction, rng) for instruction in made]
    kinds: dict[str, list[Result]] = defaultdict(list)
    sheet: list[np.ndarray] = []
    work = list(zip(made, photographs, strict=True))
    for seed, (asked, before) in enumerate(track(work, console=Console(stderr=True))):
        after = studio.edit(before, asked.text, options.cfg, options.image_cfg, seed)
        kinds[asked.kind].append(judged(asked, before, after))
        if len(sheet) < 16:
            sheet.append(np.concatenate((before, after), axis=1))
    title = f"{options.count} instructions, cfg {options.cfg:g}, image_cfg {options.image_cfg:g}"
    table = Table("kind", "n", "success", "outside", "place", box=MARKDOWN, title=title)
    for kind, results in [*sorted(kinds.items()), ("all", sum(kinds.values(), []))]:
        table.add_row(*row((kind, str(len(results))), results))
    console.print(table)
    if options.pictures:
        rows = [np.concatenate(sheet[i : i + 4], axis=1) for i in range(0, len(sheet), 4)]
        Image.fromarray(np.concatenate(rows)).save(options.pictures)
    if options.curve:
        curve = measure_curve(studio, work[: options.curve_count])
        table = Table("cfg", "image_cfg", "success", "outside", "place", box=MARKDOWN)
        for (text_cfg, image_cfg), results in curve.items():
            table.add_row(*row((f"{text_cfg:g}", f"{image_cfg:g}"), results))
        console.print(table)
        draw_curve(curve, options.curve)


def measure_curve(
    studio: Studio, work: list[tuple[Instruction, np.ndarray]]
) -> dict[tuple[float, float], list[Result]]:
    """The results for every pair of text and image guidance."""
    pairs = [(text_cfg, image_cfg) for image_cfg in IMAGE_CFGS for text_cfg in TEXT_CFGS]
    curve: dict[tuple[float, float], list[Result]] = defaultdict(list)
    for scales in track(pairs, console=Console(stderr=True)):
        for seed, (asked, before) in enumerate(work):
            after = studio.edit(before, asked.text, *scales, seed)
            curve[scales].append(judged(asked, before, after))
    return curve


if __name__ == "__main__":
    main()
