"""Photographs through inversion into an edit: what comes back, what changes, what it costs.

    python dev.py python -- benchmarks/inversion.py --count 100

The photographs are scenes painted for this benchmark, of combinations that training never showed:
as they are, with noise, blurred, and through a low JPEG quality. Each is inverted under its prompt
and edited by Prompt-to-Prompt, with every method. Columns:

- whole: the reconstruction (the source row) against the photograph;
- success: the judge finds what the edit asked for;
- outside: the edit against the photograph, away from its object;
- seconds, and rows: UNet evaluations (a backward pass counts as one more), for inversion,
  optimisation and edit together.

"autoencoder" is the photograph through the VAE alone: no method can do better. A second table tells
success and outside of every kind of edit.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from demo_edits import Case, Pack, cases, make_edit, outside, psnr, score
from PIL import Image, ImageFilter
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

from judge import judge  # isort: skip  (found by demo_edits)
from world import IMAGE_SIZE, Scene, Thing, render  # isort: skip

DAMAGES = ("none", "noise", "blur", "JPEG")


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
    outside: float
    seconds: float
    rows: int


def photograph(case: Case, number: int) -> np.ndarray:
    """A picture of the case's source prompt, (H, W, 3) uint8, damaged in one of four ways."""
    rng, noun = Random(f"photograph {number}"), case.source.nouns[0]
    radius = rng.uniform(30, 42)
    x, y = (rng.uniform(radius + 8, IMAGE_SIZE - radius - 8) for _ in range(2))
    thing = Thing(noun.shape, noun.colour or "", noun.texture, None, None, x, y, radius)
    picture = render(Scene((thing,), case.source.background or ""))
    return damaged(picture, DAMAGES[number % len(DAMAGES)], number)


def damaged(picture: np.ndarray, damage: str, seed: int) -> np.ndarray:
    image = Image.fromarray(picture)
    if damage == "noise":
        noise = np.random.default_rng(seed).normal(0, 8, picture.shape)
        image = Image.fromarray((picture + noise).clip(0, 255).astype(np.uint8))
    if damage == "blur":
        image = image.filter(ImageFilter.GaussianBlur(1.2))
    if damage == "JPEG":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=35)
        image = Image.open(file).convert("RGB")
    return np.asarray(image)


class Studio:
    """The demo model, and one photograph after the other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.pack = Pack()
        self.model, self.clip, self.vae = self.pack.demo_model()
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

    def text(self, prompt: str) -> list:
        return self.pack.text(self.clip, prompt)

    def decoded(self, samples: torch.Tensor) -> np.ndarray:
        pictures = self.vae.decode(samples).clamp(0, 1) * 255
        return pictures.round().byte().cpu().numpy()

    def encoded(self, picture: np.ndarray) -> dict:
        pixels = torch.from_numpy(picture.copy())[None].float() / 255
        return {"samples": self.vae.encode(pixels)}

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
        o, call = self.options, self.pack.node
        inversion, start, _ = self.inverted(case, latent, method.fixed_point)
        model, negative = self.model, self.text("")
        if method.inner_steps is not None:
            model, negative, _ = call(
                "P2PNullTextOptimize", model=model, inversion=inversion, cfg=method.cfg,
                positive=self.text(case.source.text), negative=negative,
                inner_steps=method.inner_steps, learning_rate=1e-2, early_stop=1e-5,
            )  # fmt: skip
        edit = make_edit(self.pack, self.clip, case)
        if method.blend:
            words = {"source_words": case.words[0], "target_words": case.words[1]}
            [edit] = call("P2PLocalBlendMask", edit=edit, threshold=o.threshold, **words)
        model, positive, rows, _ = call(
            "P2PAttentionController", model=model, latent=start, edit=edit, record_maps=False,
            inversion=inversion if method.pinned else None,
        )  # fmt: skip
        samples = self.pack.host.common_ksampler(
            model, 0, o.steps, method.cfg, "euler", "normal", positive, negative, rows,
            disable_noise=True,
        )[0]["samples"]  # fmt: skip
        return self.decoded(samples)

    def results(self, case: Case, picture: np.ndarray) -> Iterator[tuple[str, Result]]:
        """What every method makes of a photograph."""
        self.inversions.clear()
        latent = self.encoded(picture)
        away = outside(judge(picture).mask, case.new_shape)  # type: ignore[arg-type]
        [round_trip] = self.decoded(latent["samples"])
        around = psnr(picture[away], round_trip[away])
        yield "autoencoder", Result(psnr(picture, round_trip), False, around, 0.0, 0)
        for method in methods(self.options.cfg):
            if self.options.methods and method.name not in self.options.methods:
                continue
            self.rows, self.saved, start = 0, 0.0, time.monotonic()
            source, edited = self.run(case, latent, method)
            seconds = time.monotonic() - start + self.saved
            yield (
                method.name,
                Result(
                    psnr(picture, source),
                    score(picture, edited, case).success,
                    psnr(picture[away], edited[away]),
                    seconds,
                    self.rows,
                ),
            )


def table(results: dict[str, list[Result]], title: str) -> Table:
    shown = Table(
        *("method", "whole", "success", "outside", "seconds", "rows"), box=MARKDOWN, title=title
    )
    for name, rows in results.items():
        whole, success, around, seconds, evaluated = (
            statistics.fmean(column) for column in zip(*rows, strict=True)
        )
        made = name != "autoencoder"
        shown.add_row(
            name,
            f"{whole:.1f} dB",
            f"{100 * success:.0f} %" if made else "",
            f"{around:.1f} dB",
            f"{seconds:.1f}" if made else "",
            f"{evaluated:.0f}" if made else "",
        )
    return shown


def table_of_kinds(results: dict[str, list[Result]], kinds: list[str]) -> Table:
    """success and outside of every method for every kind of edit; kinds: of the photographs."""
    names = sorted(set(kinds))
    shown = Table("method", *names, box=MARKDOWN, title="success, outside")
    for method, rows in results.items():
        cells = []
        for name in names:
            chosen = [row for row, kind in zip(rows, kinds, strict=True) if kind == name]
            success = statistics.fmean(row.success for row in chosen)
            around = statistics.fmean(row.outside for row in chosen)
            made = f"{100 * success:.0f} %, " if method != "autoencoder" else ""
            cells.append(f"{made}{around:.1f} dB")
        shown.add_row(method, *cells)
    return shown


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="photographs")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--cfg", type=float, default=7.5)
    parser.add_argument("--threshold", type=float, default=0.3, help="of the local blend")
    parser.add_argument("--threads", type=int, default=1)
    names = [method.name for method in methods(7.5)]
    parser.add_argument("--methods", nargs="+", choices=names, help="only these")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    studio = Studio(options)
    results: dict[str, list[Result]] = defaultdict(list)
    edits = cases(options.count)
    for number, case in enumerate(track(edits, console=Console(stderr=True))):
        picture = photograph(case, number)
        for name, result in studio.results(case, picture):
            results[name].append(result)
    title = f"{options.count} photographs, {options.steps} steps, cfg {options.cfg:g}"
    Console(width=110).print(table(results, title))
    Console(width=110).print(table_of_kinds(results, [case.kind for case in edits]))


if __name__ == "__main__":
    main()
