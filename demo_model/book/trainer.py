"""Training of UNet and text encoder: networks, optimisers, running average, the loop.

Noise prediction on Stable Diffusion's schedule. The networks run in bfloat16; the optimiser
and the running average work on float32 master copies of the weights.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from book.networks import (
    DEVICE,
    TextEncoder,
    Vocabulary,
    build_unet,
    initialise,
    mix_padding,
    predict_noise,
    scaled_linear_alphas,
)

WORDS_ONLY = 0.92  # share of samples whose end-of-text and padding outputs say nothing
LAYOUT_TIMES = (0.45, 0.95)  # shares of the schedule
EMA_EVERY = 8


def draw_times(count: int, layout_first: bool) -> Tensor:
    """Schedule steps (B,), one per stratum: less variance than independent draws.

    With layout_first three quarters lie where it is decided what is where.
    """
    share = (torch.arange(count) + torch.rand(count)) / count
    if layout_first:
        low, high = LAYOUT_TIMES
        share = torch.where(share < 0.75, low + (high - low) * share / 0.75, (share - 0.75) * 4)
    return (share * 1000).long()


def is_hidden_matrix(name: str, weight: Tensor) -> bool:
    """True for weights between hidden features: linear layers and inner convolutions."""
    outer = ("embedding", "unet.input_blocks.0.", "unet.out.")
    return weight.ndim > 1 and not any(part in name for part in outer)


class Trainer:
    """Networks, master weights, optimiser, running average."""

    def __init__(
        self,
        args: argparse.Namespace,
        words: Iterable[str],
        in_channels: int,
        out_channels: int,
    ) -> None:
        self.args = args
        self.vocabulary = Vocabulary(words)
        self.unet = build_unet(in_channels, out_channels)
        self.text = TextEncoder(len(self.vocabulary))
        initialise(self.unet, self.text)
        both = nn.ModuleDict({"unet": self.unet, "text": self.text}).to(DEVICE)
        self.master = {k: v.detach().clone() for k, v in both.named_parameters()}
        self.average = {k: v.clone() for k, v in self.master.items()}
        self.step_count = 0
        both.to(torch.bfloat16).to(memory_format=torch.channels_last)
        self.running = dict(both.named_parameters())
        self.live = {k: v for k, v in self.running.items() if self.is_trained(k)}
        matrices = [k for k in self.live if is_hidden_matrix(k, self.master[k])]
        # Muon takes matrices only: convolutions are seen as (out, in·k·k), sharing their memory.
        self.flat = {k: self.master[k].flatten(1) for k in matrices}
        rest = [self.master[k] for k in self.live if k not in matrices]
        self.optimisers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(
                list(self.flat.values()),
                lr=args.lr,
                weight_decay=0.01,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0),
        )
        self.alphas = scaled_linear_alphas().to(DEVICE)
        self.end = self.vocabulary.rows[self.vocabulary.end]
        self.empty = torch.tensor([self.vocabulary.encode("")], device=DEVICE)

    def is_trained(self, name: str) -> bool:
        """Whether a weight changes; the text projection is unused and stays the identity."""
        return "text_projection" not in name

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of `save`."""
        state = torch.load(path, map_location=DEVICE)
        for goal, source in ((self.master, "master"), (self.average, "average")):
            for name, value in goal.items():
                value.copy_(state[source][name])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step_count = state["step"]
        self.push()

    def save(self, path: Path) -> None:
        """Write everything needed to continue, or to export."""
        state = {
            "step": self.step_count,
            "master": self.master,
            "average": self.average,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "token_ids": self.vocabulary.token_ids,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    @torch.no_grad()
    def push(self) -> None:
        """Master weights to the running networks."""
        torch._foreach_copy_(list(self.running.values()), [self.master[k] for k in self.running])

    def loss(self, latents: Tensor, rows: Tensor, image: Tensor | None = None) -> Tensor:
        """Weighted noise-prediction error: weight min(1 + 1/snr, weight_cap).

        latents: (B, C, h, w); rows: (B, 77) of the vocabulary; image: (B, C, h, w), further input.
        """
        count = len(latents)
        times = draw_times(count, self.args.layout_first).to(DEVICE)
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        x = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        context = self.text(torch.cat((rows, self.empty)))
        words_only = torch.rand(count, device=DEVICE) < WORDS_ONLY
        context = mix_padding(context[:-1], context[-1:], rows, self.end, words_only)
        x = x if image is None else torch.cat((x, image), dim=1)
        x = x.bfloat16().contiguous(memory_format=torch.channels_last)
        error = predict_noise(self.unet, x, times, context).float() - noise
        weight = (1 + (1 - alpha) / alpha).clamp_max(self.args.weight_cap)
        return (weight * error.square()).mean()

    def step(self, rate: float, *batch: Tensor) -> Tensor:
        """One optimiser step at a learning rate, on a batch for `loss`."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        loss = self.loss(*(part.to(DEVICE, non_blocking=True) for part in batch))
        loss.backward()
        with torch.no_grad():
            for name, parameter in self.live.items():
                self.master[name].grad = torch.empty_like(self.master[name]).copy_(parameter.grad)
                parameter.grad = None
            nn.utils.clip_grad_norm_([self.master[k] for k in self.live], 1.0, foreach=True)
            for name, matrix in self.flat.items():
                matrix.grad = self.master[name].grad.flatten(1)
            for optimiser in self.optimisers:
                optimiser.step()
            self.step_count += 1
            if self.step_count % EMA_EVERY == 0:
                decay = min(self.args.ema, (1 + self.step_count) / (20 + self.step_count))
                torch._foreach_lerp_(
                    [self.average[k] for k in self.live],
                    [self.master[k] for k in self.live],
                    1 - decay**EMA_EVERY,
                )
        self.push()
        return loss.detach()


def learning_rate(base: float, step: int, share: float) -> float:
    """Warm-up over 200 steps, cosine to a twentieth at the end of the run's time."""
    return base * min(1.0, (step + 1) / 200) * (0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2)


class Batches(IterableDataset):
    """Endless batches; every worker draws its own, and sees no shards that arrive later."""

    def __init__(self, batch: Callable[[Random], tuple[Tensor, ...]], seed: int) -> None:
        self.batch, self.seed = batch, seed

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Batches from this worker's random numbers."""
        worker = get_worker_info()
        rng = Random(f"{self.seed} {worker.id if worker else 0}")
        while True:
            yield self.batch(rng)


def train(
    trainer: Trainer,
    batch: Callable[[Random], tuple[Tensor, ...]],
    on_save: Callable[[], None] = lambda: None,
) -> None:
    """Train for the minutes that were asked for, with a checkpoint every 400 steps."""
    args = trainer.args
    batches = DataLoader(
        Batches(batch, args.seed + trainer.step_count),
        batch_size=None,
        num_workers=args.workers,
        pin_memory=DEVICE == "cuda",
    )
    start, first, mean = time.monotonic(), trainer.step_count, torch.zeros((), device=DEVICE)
    for made in batches:
        share = (time.monotonic() - start) / (60 * args.minutes)
        if share >= 1:
            break
        args.layout_first = share < args.layout_share
        rate = learning_rate(args.lr, trainer.step_count - first, share)
        loss = trainer.step(rate, *made)
        done = trainer.step_count - first
        mean.lerp_(loss, max(0.01, 1 / done))
        if done % 100 == 0:
            speed = done * args.batch / (time.monotonic() - start)
            logging.info(
                "step %d, lr %.1e, loss %.4f, %.0f/s", trainer.step_count, rate, mean.item(), speed
            )
        if done % 400 == 0:
            trainer.save(args.out)
            on_save()
    trainer.save(args.out)


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Options of both training programs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("unet.pt"))
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--layout-share", type=float, default=0.0, help="first part of the run, see draw_times"
    )
    parser.add_argument("--weight-cap", type=float, default=20.0, help="see Trainer.loss")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches")
    return parser
