"""Null-text optimisation beside the paper's Algorithm 1: what comes back, what an edit keeps, cost.

    python dev.py python -- benchmarks/null_text.py --count 15 --steps 20

The same photographs, inverted paths and edits for all. Algorithm 1 (arXiv:2211.09794) is here as
the authors' code runs it: Adam anew at every step, a loss that is looked at after an update, and
two more predictions for the step itself. Columns:

- back: the reconstruction against the photograph through the autoencoder, and the worst of them;
- success: the judge finds what the edit asked for, and nothing else;
- kept: the edit against the photograph, where it should stay as it is (see `inversion.py`);
- distance: of the null embeddings from the empty prompt's, as a share of that one's norm;
- rows: UNet evaluations of the optimisation (a backward pass counts as one more).

With two methods a second table compares them photograph by photograph, with standard errors: all of
them, and those whose edit succeeds with both.

With --rounding it tells instead by how much results differ between one thread and two, which round
differently: reconstructions, and embeddings as a share of the way that the optimisation took them.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from inversion import Bench as Photographs
from inversion import Case, photographs, psnr, score
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from p2p_core.inversion import Denoise, ddim_step
from p2p_core.null_text import DenoiseUnder, NullEmbeddings, OnStep, Settings, guided

METHODS = ALGORITHM_1, OURS, NEGATIVE, DIRECT = (
    "Algorithm 1", "null-text", "negative-prompt", "direct"
)  # fmt: skip


def algorithm_1(
    cond: Denoise,
    uncond: DenoiseUnder,
    pivot: Tensor,
    sigmas: Sequence[float],
    embedding: Tensor,
    settings: Settings,
    on_step: OnStep | None = None,
) -> NullEmbeddings:
    """The paper's, for one picture; arguments as for ``p2p_core.null_text.optimize_null_text``."""
    x, null, found, losses, updates = pivot[0], embedding, [], [], 0
    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        null = null.detach().clone().requires_grad_()
        adam = torch.optim.Adam([null], lr=settings.learning_rate * (1 - i / 100))
        with torch.no_grad():
            denoised = cond(x, sigma)
        for _ in range(settings.inner_steps):
            ends = ddim_step(
                x, guided(denoised, uncond(x, sigma, null), settings.cfg), sigma, following
            )
            loss = ((ends - pivot[i + 1]).square() / (1 + following**2)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            updates += 1
            if loss.item() < settings.early_stop + 2e-5 * i:
                break
        with torch.no_grad():
            denoised = guided(cond(x, sigma), uncond(x, sigma, null), settings.cfg)
            x = ddim_step(x, denoised, sigma, following)
        found.append(null.detach())
        losses.append((x - pivot[i + 1]).flatten(1).square().mean(dim=1) / (1 + following**2))
        if on_step is not None:
            on_step(i + 1, x, denoised, losses[-1])
    predictions = updates + 3 * len(found)
    return NullEmbeddings(torch.stack(found), x, torch.stack(losses), predictions, updates)


class Result(NamedTuple):
    back: float
    success: bool
    kept: float
    distance: float
    rows: int
    seconds: float


class Optimised(NamedTuple):
    """A model and a negative to sample with, the null embeddings (N, 1, T, D), and their cost."""

    model: Any
    negative: list
    embeddings: Tensor | None
    rows: int
    seconds: float


class Bench:
    """The demo model, and one photograph after the other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.photographs = options, Photographs(options)
        self.studio, self.pack = self.photographs.studio, self.photographs.pack
        node = self.pack.host.NODE_CLASS_MAPPINGS["P2PNullTextOptimize"].__module__
        name = node.rpartition(".")[0] + ".host.null_text.optimise"
        self.program = importlib.import_module(name)

    def optimised(self, name: str, case: Case, latent: dict) -> Optimised:
        """By the node itself, whose optimisation is exchanged for Algorithm 1."""
        studio, negative = self.studio, self.studio.text("")
        inversion, *_ = self.photographs.inverted(case, latent, 0)
        if name == DIRECT:
            return Optimised(studio.model, negative, None, 0, 0.0)
        kept: list[NullEmbeddings] = []

        def keep(how: Callable[..., NullEmbeddings]) -> Callable[..., NullEmbeddings]:
            return lambda *arguments: kept.append(how(*arguments)) or kept[0]

        program, rows, start = self.program, self.photographs.rows, time.monotonic()
        ours = algorithm_1 if name == ALGORITHM_1 else program.optimize_null_text
        with (
            patch.object(program, "optimize_null_text", keep(ours)),
            patch.object(
                program, "negative_prompt_inversion", keep(program.negative_prompt_inversion)
            ),
        ):
            model, negative, _ = self.pack.node(
                "P2PNullTextOptimize", model=studio.model, inversion=inversion,
                cfg=self.options.cfg, positive=studio.text(case.source.text), negative=negative,
                inner_steps=0 if name == NEGATIVE else self.options.inner_steps,
                learning_rate=1e-2, early_stop=1e-5,
            )  # fmt: skip
        seconds, rows = time.monotonic() - start, self.photographs.rows - rows
        return Optimised(model, negative, kept[0].embeddings, rows, seconds)

    def pictures(
        self, case: Case, latent: dict, how: Optimised, sampler: str, pinned: bool = False
    ) -> np.ndarray:
        """Reconstruction and edit, (2, H, W, 3) uint8."""
        inversion, start, _ = self.photographs.inverted(case, latent, 0)
        edit = self.studio.edit(case)
        run = self.pack.control(how.model, start, [edit], inversion if pinned else None)
        o = self.options
        samples = self.pack.host.common_ksampler(
            run.model, 0, o.steps, o.cfg, sampler, "normal", run.positive, how.negative, run.latent,
            disable_noise=True,
        )[0]["samples"]  # fmt: skip
        return self.studio.decoded(samples)

    def distance(self, embeddings: Tensor | None) -> float:
        """Mean over the steps of |e - e_0| / |e_0|, e_0 of the empty prompt."""
        if embeddings is None:
            return 0.0
        null = self.studio.text("")[0][0]
        return float(((embeddings - null).flatten(1).norm(dim=1) / null.norm()).mean())

    def result(self, name: str, case: Case, picture: np.ndarray, latent: dict) -> Result:
        how = self.optimised(name, case, latent)
        source, edited = self.pictures(
            case, latent, how, self.options.sampler, pinned=name == DIRECT
        )
        [round_trip] = self.studio.decoded(latent["samples"])
        success, kept, _ = score(picture, edited, case)
        distance = self.distance(how.embeddings)
        return Result(psnr(round_trip, source), success, kept, distance, how.rows, how.seconds)

    def rounding(self, name: str, case: Case, latent: dict) -> list[float]:
        """Of one thread and of two: reconstructions under euler and heun, dB; and the difference.

        That is |e_1 - e_2| / |e_1 - e_0| over all steps.
        """
        found, quality = [], []
        [round_trip] = self.studio.decoded(latent["samples"])
        for threads in (1, 2):
            torch.set_num_threads(threads)
            how = self.optimised(name, case, latent)
            assert how.embeddings is not None
            found.append(how.embeddings)
            for sampler in ("euler", "heun"):
                source, _ = self.pictures(case, latent, how, sampler)
                quality.append(psnr(round_trip, source))
        way = found[0] - self.studio.text("")[0][0]
        return [*quality, float((found[0] - found[1]).norm() / way.norm())]


def table(results: dict[str, list[Result]], title: str) -> Table:
    columns = ("method", "back", "worst", "success", "kept", "distance", "rows", "seconds")
    shown = Table(*columns, box=MARKDOWN, title=title)
    for name, rows in results.items():
        back, _, kept, distance, evaluated, seconds = (
            statistics.fmean(column) for column in zip(*rows, strict=True)
        )
        shown.add_row(
            name,
            f"{back:.1f} dB",
            f"{min(row.back for row in rows):.1f} dB",
            f"{sum(row.success for row in rows)} of {len(rows)}",
            f"{kept:.1f} dB",
            f"{distance:.2f}",
            f"{evaluated:.0f}",
            f"{seconds:.1f}",
        )
    return shown


def paired_table(first: list[Result], second: list[Result], title: str) -> Table:
    """Means of the second method less the first's, plus or minus their standard errors."""
    pairs = list(zip(first, second, strict=True))
    groups = {
        "all": pairs, "success with both": [p for p in pairs if p[0].success and p[1].success],
    }  # fmt: skip
    shown = Table("photographs", "n", "back", "kept", "success", box=MARKDOWN, title=title)
    for name, group in groups.items():
        if len(group) < 2:
            continue
        cells = []
        for column, unit in (("back", " dB"), ("kept", " dB"), ("success", "")):
            differences = [float(getattr(b, column) - getattr(a, column)) for a, b in group]
            error = statistics.stdev(differences) / len(group) ** 0.5
            cells.append(f"{statistics.fmean(differences):+.2f} ± {error:.2f}{unit}")
        shown.add_row(name, str(len(group)), *cells)
    return shown


def rounding_table(bench: Bench, work: list[tuple[Case, np.ndarray]]) -> Table:
    columns = ("method", "photograph", "euler, 1", "heun, 1", "euler, 2", "heun, 2", "difference")
    shown = Table(*columns, box=MARKDOWN, title="one thread and two")
    for number, (case, picture) in enumerate(track(work, console=Console(stderr=True))):
        bench.photographs.inversions.clear()
        latent = bench.studio.encoded(picture)
        for name in (ALGORITHM_1, OURS):
            *quality, difference = bench.rounding(name, case, latent)
            cells = (f"{value:.2f} dB" for value in quality)
            shown.add_row(name, str(number), *cells, f"{difference:.1e}")
    return shown


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=15, help="photographs")
    parser.add_argument("--skip", type=int, default=0, help="photographs left out before them")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=7.5)
    parser.add_argument("--inner-steps", type=int, default=10)
    parser.add_argument("--sampler", default="euler", help="of reconstruction and edit")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounding", action="store_true", help="compare one thread with two")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    bench, console = Bench(options), Console(width=110)
    work = photographs(options.skip + options.count)[options.skip :]
    if options.rounding:
        console.print(rounding_table(bench, work))
        return
    results: dict[str, list[Result]] = {name: [] for name in options.methods}
    for case, picture in track(work, console=Console(stderr=True)):
        bench.photographs.inversions.clear()
        latent = bench.studio.encoded(picture)
        for name, found in results.items():
            found.append(bench.result(name, case, picture, latent))
    title = f"{options.count} photographs, {options.steps} steps, cfg {options.cfg:g}"
    console.print(table(results, title))
    if len(results) == 2:
        first, second = results
        console.print(paired_table(*results.values(), title=f"{second} less {first}"))


if __name__ == "__main__":
    main()
