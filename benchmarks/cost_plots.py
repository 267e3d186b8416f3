"""Plots of what an edit costs against size, steps, edits and prompt length, and its memory.

    python dev.py python -- benchmarks/cost_plots.py --out benchmarks/cost.png

The runs of `cost.py` on the SD1.5 shape with random weights, alternating at every point: seconds of
the processor's time (of the GPU's with --device cuda) and the memory that a run adds at its peak.
Steps, edits and prompt lengths are measured at --small pixels, sizes at one step.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from cost import DTYPES, SOURCE, TARGET, Measured, Runs, Sample, measure, say
from cost_models import Subject, subject, use_host

PLAIN, EDIT = "plain", "edit"
LIVE = (PLAIN, EDIT, "edit of a photograph")
KEPT = ("edit of a source kept light", "edit of a source kept full")
EXPLICIT = ("explicit maps", "explicit maps in diffusers")
COLOURS = {name: f"C{i}" for i, name in enumerate((*LIVE, *KEPT, *EXPLICIT))}
STEPS, EDITS, CHUNKS = (4, 8, 16), (1, 2, 4, 7), (1, 2, 4, 6)
Lines = dict[str, list[tuple[float, Measured]]]


class Bench:
    """One subject, measured at one point after the other."""

    def __init__(self, pack: Any, on: Subject, options: argparse.Namespace) -> None:
        self.pack, self.on, self.options = pack, on, options

    def point(self, lines: Lines, at: float, made: Runs, runs: dict[str, Sample]) -> None:
        """Measure these runs, and put them on their lines."""
        say(f"at {at:g}: {', '.join(runs)}")
        o = self.options
        for name, found in measure(runs, made.networks, made.steps, o.repeats, o.device).items():
            lines[name].append((at, found))

    def runs(self, pixels: int, steps: int = 1) -> Runs:
        return Runs(self.pack, self.on, pixels, steps)

    def by_size(self) -> Lines:
        lines: Lines = defaultdict(list)
        for pixels in self.options.sizes:
            made = self.runs(pixels)
            runs = made.all()
            chosen = {name: runs[name] for name in (*LIVE, KEPT[1], *EXPLICIT) if name in runs}
            self.point(lines, pixels, made, chosen)
        return lines

    def by_steps(self) -> Lines:
        lines: Lines = defaultdict(list)
        for steps in STEPS:
            made = self.runs(self.options.small, steps)
            runs = made.all()
            self.point(lines, steps, made, {name: runs[name] for name in (*LIVE, *KEPT)})
        return lines

    def by_edits(self) -> Lines:
        """So many edits of one source, and a plain run of as many rows."""
        lines: Lines = defaultdict(list)
        for count in EDITS:
            made = self.runs(self.options.small)
            names = ["edit", *(f"edit_{number}" for number in range(2, count + 1))]
            edits = {name: made.edit() for name in names}
            run = made.control(edits.pop("edit"), made.latent, **edits)
            text = self.pack.text(self.on.clip, SOURCE)
            plain = partial(made.sample, self.on.model, text, run[2])
            self.point(lines, count, made, {PLAIN: plain, EDIT: partial(made.sample, *run[:3])})
        return lines

    def by_length(self) -> Lines:
        """A target of so many chunks of 75 tokens, and a plain run of two such rows."""
        lines: Lines = defaultdict(list)
        for chunks in CHUNKS:
            made = self.runs(self.options.small)
            target = TARGET + ", detailed" * (37 * (chunks - 1))
            edit = self.pack.node(
                "P2PWordSwap", clip=self.on.clip, source_prompt=SOURCE, target_prompt=target
            )[0]
            run = made.control(edit, made.latent)
            plain = partial(
                made.sample, self.on.model, self.pack.text(self.on.clip, target), run[2]
            )
            self.point(lines, chunks, made, {PLAIN: plain, EDIT: partial(made.sample, *run[:3])})
        return lines


def seconds(run: Measured) -> float:
    return statistics.median(run.seconds)


def mebibytes(run: Measured) -> float:
    return statistics.median(run.peaks) / 2**20


def draw(axes: Any, lines: Lines, of: Any, title: str, x: str, y: str) -> None:
    for name, points in lines.items():
        style = "--" if name == PLAIN else "-"
        values = zip(*((at, of(run)) for at, run in points), strict=True)
        axes.plot(*values, style, color=COLOURS[name], marker="o", label=name)
    axes.set(title=title, xlabel=x, ylabel=y, ylim=(0, None))
    axes.set_xticks([at for at, _ in next(iter(lines.values()))])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def figure(size: Lines, steps: Lines, edits: Lines, length: Lines, small: int) -> Any:
    drawn, axes = plt.subplots(2, 3, figsize=(15, 8.5), layout="constrained")
    draw(axes[0, 0], size, seconds, "Cost against size, one step", "pixels", "seconds")
    draw(axes[0, 1], size, mebibytes, "Memory added at the peak", "pixels", "MiB")
    draw(axes[0, 2], steps, seconds, f"Cost against steps, {small} px", "steps", "seconds")
    draw(axes[1, 0], edits, seconds, f"Cost against edits, {small} px", "edits", "seconds")
    draw(
        axes[1, 1], length, seconds, f"Cost against prompt length, {small} px", "chunks", "seconds"
    )
    ratios = {"edits": edits, "chunks of the target": length}
    for name, lines in ratios.items():
        pairs = zip(lines[EDIT], lines[PLAIN], strict=True)
        points = [(at, seconds(edit) / seconds(plain)) for (at, edit), (_, plain) in pairs]
        axes[1, 2].plot(*zip(*points, strict=True), marker="o", label=name)
    axes[1, 2].set(title="Edit against plain rows", ylabel="ratio", ylim=(0, 1.5), xlabel="number")
    axes[1, 2].grid(alpha=0.3)
    axes[1, 2].legend(fontsize=8)
    return drawn


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("cost.png"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 384, 512])
    parser.add_argument("--small", type=int, default=128, help="pixels of the other plots")
    parser.add_argument("--repeats", type=int, default=1)
    return parser.parse_args(given)


def main() -> None:
    options = arguments()
    use_host(options.device)
    from headless import Pack

    pack = Pack()
    bench = Bench(pack, subject("sd15", pack, DTYPES[options.dtype]), options)
    with torch.inference_mode():
        lines = bench.by_size(), bench.by_steps(), bench.by_edits(), bench.by_length()
    figure(*lines, options.small).savefig(options.out, dpi=90)


if __name__ == "__main__":
    main()
