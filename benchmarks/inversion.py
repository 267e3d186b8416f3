"""Photographs through inversion into an edit: what comes back, what changes, what it costs.

    python dev.py python -- benchmarks/inversion.py --count 100

The photographs are scenes painted for this benchmark, of combinations that training never showed:
as they are, with noise, blurred, and through a low JPEG quality. Each is inverted under its prompt
and edited by Prompt-to-Prompt, with every method. Columns:

- whole: the reconstruction (the source row) against the photograph;
- success: the judge finds what the edit asked for, and nothing else;
- kept: the edit against the photograph, where it should stay as it is: outside the things before
  and after, or the thing itself where the place or the season changes;
- seconds, and rows: UNet evaluations (a backward pass counts as one more), for inversion,
  optimisation and edit together.

"autoencoder" is the photograph through the VAE alone: no method can do better. A second table tells
success and kept of every kind of edit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.append(str(Path(__file__).resolve().parents[1] / "demo_model"))
from book.edits import Case, blended, cases, psnr, score
from book.photographs import DAMAGES, damaged, photograph
from book.studio import Studio


@dataclass(frozen=True)
class Method:
    """How the source finds back: cfg, refined steps, a null embedding, a pinned source."""

    name: str
    cfg: float
    fixed_point: int = 0
    inner_steps: int | None = None  # of the null-text optimisation; 0 is negative-prompt inversion
    pinned: bool = False
    blend: bool = False


def methods(cfg: float) -> list[Method]:
    return [
        Method("DDIM, cfg 1", 1.0),
        Method("DDIM", cfg),
        Method("fixed point (3), cfg 1", 1.0, fixed_point=3),
        Method("fixed point (3)", cfg, fixed_point=3),
        Method("negative-prompt", cfg, inner_steps=0),
        Method("null-text", cfg, inner_steps=10),
        Method("direct", cfg, pinned=True),
        Method("direct + blend", cfg, pinned=True, blend=True),
    ]


class Result(NamedTuple):
    whole: float
    success: bool
    kept: float
    seconds: float
    rows: int


def photographs(count: int) -> list[tuple[Case, np.ndarray]]:
    """Edits, and pictures (H, W, 3) uint8 of their source prompts, damaged in one of four ways."""
    made = []
    for number, case in enumerate(cases(count)):
        picture = photograph(case.source, Random(f"photograph {number}"))
        damage = DAMAGES[number % len(DAMAGES)]
        made.append((case, damaged(picture, damage, number)))
    return made


class Bench:
    """The picture book, and one photograph after the other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.studio = Studio(steps=options.steps, cfg=options.cfg)
        self.pack, self.model, self.text = self.studio.pack, self.studio.model, self.studio.text
        self.rows, self.saved = 0, 0.0
        self.inversions: dict[int, tuple[tuple, float, int]] = {}
        unet = self.model.model.diffusion_model
        unet.register_forward_hook(self._count)

    def _count(self, _module: Any, _inputs: tuple, output: torch.Tensor) -> None:
        self.rows += len(output)
        if output.requires_grad:
            output.register_hook(self._count_backward)

    def _count_backward(self, gradient: torch.Tensor) -> None:
        self.rows += len(gradient)

    def inverted(self, case: Case, latent: dict, fixed_point: int) -> tuple:
        """Of one photograph, made once; its cost counts for every method that uses it."""
        if fixed_point not in self.inversions:
            rows, start = self.rows, time.monotonic()
            outputs = self.pack.node(
                "P2PDDIMInvert", model=self.model, positive=self.text(case.source.text),
                latent=latent, steps=self.options.steps, scheduler="normal",
                fixed_point_iterations=fixed_point,
            )  # fmt: skip
            self.inversions[fixed_point] = (outputs, time.monotonic() - start, self.rows - rows)
            return outputs
        outputs, seconds, rows = self.inversions[fixed_point]
        self.rows, self.saved = self.rows + rows, self.saved + seconds
        return outputs

    def run(self, case: Case, latent: dict, method: Method) -> np.ndarray:
        """Reconstruction and edit, (2, H, W, 3) uint8."""
        inversion, start, _ = self.inverted(case, latent, method.fixed_point)
        model, negative = self.model, self.text("")
        if method.inner_steps is not None:
            model, negative, _ = self.pack.node(
                "P2PNullTextOptimize", model=model, inversion=inversion, cfg=method.cfg,
                positive=self.text(case.source.text), negative=negative,
                inner_steps=method.inner_steps, learning_rate=1e-2, early_stop=1e-5,
            )  # fmt: skip
        edit = self.studio.edit(blended(case) if method.blend else case)
        pinned = inversion if method.pinned else None
        run = self.pack.control(model, start, [edit], pinned)
        return self.studio.sample(
            run.model, run.positive, run.latent, 0, negative=negative, cfg=method.cfg,
            disable_noise=True,
        )  # fmt: skip

    def results(self, case: Case, picture: np.ndarray) -> Iterator[tuple[str, Result]]:
        """What every method makes of a photograph."""
        self.inversions.clear()
        latent = self.studio.encoded(picture)
        [round_trip] = self.studio.decoded(latent["samples"])
        kept = score(picture, round_trip, case).kept
        yield "autoencoder", Result(psnr(picture, round_trip), False, kept, 0.0, 0)
        for method in methods(self.options.cfg):
            if self.options.methods and method.name not in self.options.methods:
                continue
            self.rows, self.saved, start = 0, 0.0, time.monotonic()
            source, edited = self.run(case, latent, method)
            seconds, whole = time.monotonic() - start + self.saved, psnr(picture, source)
            success, kept, _ = score(picture, edited, case)
            yield method.name, Result(whole, success, kept, seconds, self.rows)


def table(results: dict[str, list[Result]], title: str) -> Table:
    shown = Table(
        *("method", "whole", "success", "kept", "seconds", "rows"), box=MARKDOWN, title=title
    )
    for name, rows in results.items():
        whole, success, kept, seconds, evaluated = (
            statistics.fmean(column) for column in zip(*rows, strict=True)
        )
        made = name != "autoencoder"
        shown.add_row(
            name,
            f"{whole:.1f} dB",
            f"{100 * success:.0f} %" if made else "",
            f"{kept:.1f} dB",
            f"{seconds:.1f}" if made else "",
            f"{evaluated:.0f}" if made else "",
        )
    return shown


def table_of_kinds(results: dict[str, list[Result]], kinds: list[str]) -> Table:
    """success and kept of every method for every kind of edit; kinds: of the photographs."""
    names = sorted(set(kinds))
    shown = Table("method", *names, box=MARKDOWN, title="success, kept")
    for method, rows in results.items():
        cells = []
        for name in names:
            chosen = [row for row, kind in zip(rows, kinds, strict=True) if kind == name]
            success = statistics.fmean(row.success for row in chosen)
            kept = statistics.fmean(row.kept for row in chosen)
            made = f"{100 * success:.0f} %, " if method != "autoencoder" else ""
            cells.append(f"{made}{kept:.1f} dB")
        shown.add_row(method, *cells)
    return shown


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="photographs")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--cfg", type=float, default=7.5)
    parser.add_argument("--threads", type=int, default=1)
    names = [method.name for method in methods(7.5)]
    parser.add_argument("--methods", nargs="+", choices=names, help="only these")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    bench, work = Bench(options), photographs(options.count)
    results: dict[str, list[Result]] = defaultdict(list)
    for case, picture in track(work, console=Console(stderr=True)):
        for name, result in bench.results(case, picture):
            results[name].append(result)
    title = f"{options.count} photographs, {options.steps} steps, cfg {options.cfg:g}"
    Console(width=110).print(table(results, title))
    Console(width=110).print(table_of_kinds(results, [case.kind for case, _ in work]))


if __name__ == "__main__":
    main()
