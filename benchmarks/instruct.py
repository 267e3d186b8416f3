"""Do instructions work, and what do the two guidance scales trade? The picture book, judged.

    python dev.py python -- benchmarks/instruct.py --count 200

Photographs are painted for this benchmark; what an instruction makes of them is a combination of
thing, colour and place that training never showed (where clothes or a season come: in new
company). Columns:

- success: the judge finds what the instruction asks for, and nothing else changed;
- kept: against the photograph, what should stay: the picture outside the things before and after,
  or the thing itself where the place or the season changes;
- structure: overlap (IoU) of the thing's region before and after.

`--curve` measures other photographs and instructions at every pair of scales, to choose by.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random

import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.append(str(Path(__file__).resolve().parents[1] / "demo_model"))
from book.edits import Score, score
from book.evaluate import sheet
from book.instructions import KIND_NAMES, Instruction, sample_instruction
from book.photographs import photograph
from book.studio import InstructStudio

TEXT_CFGS = (2.0, 3.5, 5.0, 7.5)
IMAGE_CFGS = (1.0, 1.5, 2.0, 3.0)
Work = list[tuple[Instruction, np.ndarray]]


def instructions(count: int, seed: str) -> Work:
    """Instructions, the kinds in turn, and a picture (H, W, 3) uint8 for each."""
    rng = Random(seed)
    made = [
        sample_instruction(rng, KIND_NAMES[number % len(KIND_NAMES)], held_out=True)
        for number in range(count)
    ]
    return [(one, photograph(one.case.source, rng)) for one in made]


def followed(
    studio: InstructStudio, work: Work, cfg: float, image_cfg: float
) -> list[tuple[np.ndarray, Score]]:
    """Every picture after its instruction, and the score of that."""
    studio.cfg, studio.image_cfg = cfg, image_cfg
    results = []
    for seed, (asked, before) in enumerate(track(work, console=Console(stderr=True))):
        after = studio.follow(before, asked.text, seed)
        results.append((after, score(before, after, asked.case)))
    return results


def row(name: Sequence[str], results: Sequence[Score]) -> list[str]:
    success, kept, structure = map(statistics.fmean, zip(*results, strict=True))
    return [*name, f"{100 * success:.0f} %", f"{kept:.1f} dB", f"{structure:.2f}"]


def table_of_kinds(work: Work, results: list[Score], title: str) -> Table:
    table = Table("kind", "n", "success", "kept", "structure", box=MARKDOWN, title=title)
    kinds: dict[str, list[Score]] = defaultdict(list)
    for (asked, _), result in zip(work, results, strict=True):
        kinds[asked.case.kind].append(result)
    for kind, chosen in [*sorted(kinds.items()), ("all", results)]:
        table.add_row(*row((kind, str(len(chosen))), chosen))
    return table


Curve = dict[tuple[float, float], list[Score]]


def measure_curve(studio: InstructStudio, work: Work) -> Curve:
    """The scores for every pair of text and image guidance."""
    return {
        (cfg, image_cfg): [result for _, result in followed(studio, work, cfg, image_cfg)]
        for image_cfg in IMAGE_CFGS
        for cfg in TEXT_CFGS
    }


def draw_curve(curve: Curve, path: Path) -> None:
    """Success against what is kept, a line for every image scale."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for image_cfg in IMAGE_CFGS:
        chosen = [curve[text_cfg, image_cfg] for text_cfg in TEXT_CFGS]
        x = [statistics.fmean(result.kept for result in rows) for rows in chosen]
        y = [100 * statistics.fmean(result.success for result in rows) for rows in chosen]
        axes.plot(x, y, marker="o", label=f"$s_I$ = {image_cfg:g}")
        for text_cfg, *point in zip(TEXT_CFGS, x, y, strict=True):
            axes.annotate(f"{text_cfg:g}", point, (3, 3), textcoords="offset points", fontsize=8)
    axes.set(xlabel="PSNR of what should stay, dB", ylabel="success, %")
    axes.set_title("Text guidance $s_T$ (numbers) and image guidance $s_I$", fontsize=10)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="instructions; 0: only the curve")
    parser.add_argument("--curve-count", type=int, default=36, help="for every pair of scales")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--image-cfg", type=float, default=1.5)
    parser.add_argument("--weights", type=Path, help="other weights of the variant")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--curve", type=Path, help="also measure the trade-off, and plot it here")
    parser.add_argument("--pictures", type=Path, help="also write the first edits as a sheet")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    studio, console = InstructStudio(options.weights, options.steps), Console(width=110)
    if options.count:
        work = instructions(options.count, "held-out instructions")
        results = followed(studio, work, options.cfg, options.image_cfg)
        scales = f"cfg {options.cfg:g}, image_cfg {options.image_cfg:g}"
        scores = [result for _, result in results]
        console.print(table_of_kinds(work, scores, f"{options.count} instructions, {scales}"))
        if options.pictures:
            shown = list(zip(work, results, strict=True))[:24]
            pairs = [picture for (_, before), (after, _) in shown for picture in (before, after)]
            texts = [text for (one, _), _ in shown for text in (one.case.source.text, one.text)]
            sheet(np.stack(pairs), texts, 8).save(options.pictures, quality=90)
    if options.curve:
        curve = measure_curve(
            studio, instructions(options.curve_count, "instructions to choose by")
        )
        table = Table("cfg", "image_cfg", "success", "kept", "structure", box=MARKDOWN)
        for (text_cfg, image_cfg), scores in curve.items():
            table.add_row(*row((f"{text_cfg:g}", f"{image_cfg:g}"), scores))
        console.print(table)
        draw_curve(curve, options.curve)


if __name__ == "__main__":
    main()
