"""Null-text optimisation: model evaluations and reconstruction against the paper's schedule.

    python dev.py python -- benchmarks/null_text.py --count 12

The same photographs and inverted paths for both. The reference is Algorithm 1 as the authors' code
runs it: Adam anew at every step, a loss that is looked at after an update, and two more predictions
for the step itself. A row is one forward or one backward pass of one picture. PSNR is against the
autoencoder's round trip.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from demo_edits import Case, Pack, cases, psnr
from inversion import photograph
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from p2p_core.inversion import ddim_invert, ddim_step
from p2p_core.null_text import Settings, guided, negative_prompt_inversion, optimize_null_text


class Result(NamedTuple):
    psnr: float
    rows: int
    seconds: float


class Network:
    """The demo model as a denoiser in sigma space that counts its passes."""

    def __init__(self) -> None:
        import comfy.model_management

        self.pack = Pack()
        self.patcher, self.clip, self.vae = self.pack.demo_model()
        comfy.model_management.load_models_gpu([self.patcher])
        self.model, self.rows = self.patcher.model, 0

    def text(self, prompt: str) -> Tensor:
        return self.clip.encode_from_tokens(self.clip.tokenize(prompt)).float().clone()

    def denoise(self, x: Tensor, sigma: float, context: Tensor) -> Tensor:
        self.rows += 1
        out = self.model.apply_model(x, x.new_full((1,), sigma), c_crossattn=context)
        if out.requires_grad:
            out.register_hook(self._backward)
        return out

    def _backward(self, _gradient: Tensor) -> None:
        self.rows += 1

    def picture(self, x: Tensor) -> np.ndarray:
        with torch.inference_mode():
            [made] = self.vae.decode(self.model.process_latent_out(x.detach()))
        return made.clamp(0, 1).mul(255).round().byte().numpy()


def reference(
    network: Network, pivot: Tensor, sigmas: list[float], prompt: Tensor, null: Tensor, s: Settings
) -> Tensor:
    """The paper's schedule; returns the reconstruction."""
    x = pivot[0]
    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        null = null.detach().clone().requires_grad_()
        adam = torch.optim.Adam([null], lr=s.rate(i))
        with torch.no_grad():
            cond = network.denoise(x, sigma, prompt)
        for _ in range(s.inner_steps):
            denoised = guided(cond, network.denoise(x, sigma, null), s.cfg)
            error = ddim_step(x, denoised, sigma, following) - pivot[i + 1]
            loss = (error.square() / (1 + following**2)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            if loss.item() < s.early_stop + 2e-5 * i:
                break
        with torch.no_grad():
            cond, uncond = (network.denoise(x, sigma, text) for text in (prompt, null))
            x = ddim_step(x, guided(cond, uncond, s.cfg), sigma, following)
    return x


def measure(network: Network, case: Case, number: int, steps: int, cfg: float) -> dict[str, Result]:
    """Every method on one photograph."""
    import comfy.samplers

    pixels = torch.from_numpy(photograph(case, number).copy())[None].float() / 255
    with torch.inference_mode():
        clean = network.model.process_latent_in(network.vae.encode(pixels))
    clean = clean.clone()
    sampling = network.patcher.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", steps).tolist()
    prompt, null = network.text(case.source.text), network.text("")

    def under(context: Tensor) -> Callable[[Tensor, float], Tensor]:
        return lambda x, sigma: network.denoise(x, sigma, context)

    settings = Settings(cfg)
    with torch.no_grad():
        pivot, _ = ddim_invert(under(prompt), clean, sigmas)
    runs: dict[str, Callable[[], Tensor]] = {
        "reference schedule": lambda: reference(network, pivot, sigmas, prompt, null, settings),
        "null-text": lambda: (
            optimize_null_text(under(prompt), network.denoise, pivot, sigmas, null, settings).x
        ),
        "negative-prompt": lambda: (
            negative_prompt_inversion(under(prompt), pivot, sigmas, prompt).x
        ),
    }
    results, wanted = {}, network.picture(clean)
    for name, run in runs.items():
        network.rows, start = 0, time.monotonic()
        x = run()
        seconds = time.monotonic() - start
        results[name] = Result(psnr(wanted, network.picture(x)), network.rows, seconds)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=12, help="photographs")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--cfg", type=float, default=7.5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network, found = Network(), defaultdict(list)
    for number, case in enumerate(track(cases(options.count), console=Console(stderr=True))):
        for name, result in measure(network, case, number, options.steps, options.cfg).items():
            found[name].append(result)
    title = f"{options.count} photographs, {options.steps} steps, cfg {options.cfg:g}"
    table = Table("method", "PSNR", "worst", "rows", "seconds", box=MARKDOWN, title=title)
    for name, results in found.items():
        quality, rows, seconds = (statistics.fmean(part) for part in zip(*results, strict=True))
        worst = min(result.psnr for result in results)
        table.add_row(name, f"{quality:.1f} dB", f"{worst:.1f} dB", f"{rows:.0f}", f"{seconds:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
