"""Train encoder and decoder together on crops of painted scenes, or the decoder alone.

The latents are kept near zero mean and unit variance in every channel, and get some noise on
their way to the decoder, so that close latents mean similar pictures. `--decoder-only` goes on
with a fixed encoder while the UNet already trains on its latents.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from book.networks import DEVICE
from book.vae import build_autoencoder
from book.world import IMAGE_SIZE, Scene, render, sample_scene

LATENT_NOISE = 0.2
SPREAD_WEIGHT = 0.02


class Pictures:
    """Painted shards in memory; `refresh` takes in those that arrived since."""

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self.names: set[str] = set()
        self.shards: list[tuple[list[Scene], Tensor]] = []
        self.refresh()

    def refresh(self) -> None:
        """Read new shards."""
        for path in sorted(self.folder.glob("scenes_*.pt"))[: self.most]:
            if path.name not in self.names:
                shard = torch.load(path, weights_only=False)
                self.names.add(path.name)
                self.shards.append((shard["scenes"], shard["pictures"]))
        if not self.shards:
            raise FileNotFoundError(f"{self.folder} holds no scenes_*.pt; run paint_pool.py first.")

    def crops(self, rng: Random, count: int, size: int) -> Tensor:
        """Crops around things, on the grid of 8 pixels: (count, 3, size, size) in [0, 1]."""
        out = torch.empty(count, size, size, 3, dtype=torch.uint8)
        room = (IMAGE_SIZE - size) // 8
        for crop in out:
            scenes, pictures = rng.choice(self.shards)
            index = rng.randrange(len(scenes))
            thing = rng.choice(scenes[index].things)
            spread = 0.6 * thing.side
            middle = (thing.x, thing.y - thing.side / 2)
            left, top = (
                8 * min(room, max(0, round((at + rng.uniform(-spread, spread) - size / 2) / 8)))
                for at in middle
            )
            crop[:] = pictures[index, top : top + size, left : left + size]
        return out.permute(0, 3, 1, 2).float().div_(255)


def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences between neighbours along width and height of (B, C, H, W)."""
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 + L2 + gradient loss, with pixels near edges counted up to four times."""
    dx, dy = gradients(target)
    edge = F.pad(dx.abs(), (0, 1)) + F.pad(dy.abs(), (0, 0, 0, 1))
    edge = F.max_pool2d(edge.amax(1, keepdim=True), 5, 1, 2).clamp(0, 0.5)
    weight = 1 + 6 * edge
    error = output - target
    loss = (weight * (error.abs() + 6 * error.square())).mean()
    for a, b in zip(gradients(output), (dx, dy), strict=True):
        loss = loss + 0.5 * (a - b).abs().mean()
    return loss


def spread_loss(latents: Tensor) -> Tensor:
    """How far every channel of (B, C, h, w) is from zero mean and unit variance."""
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return (mean.square() + (deviation - 1).square()).sum()


class Trainer:
    """Both networks, optimisers, running average."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.model = build_autoencoder().to(DEVICE, memory_format=torch.channels_last)
        if args.resume:
            state = torch.load(args.resume, map_location=DEVICE)
            self.model.load_state_dict(state["model"])
        trained = self.model["decoder"] if args.decoder_only else self.model
        inner = [p for p in trained.parameters() if p.ndim == 4 and min(p.shape[:2]) >= 16]
        rest = [p for p in trained.parameters() if all(p is not q for q in inner)]
        self.inner = {p: p.detach().flatten(1).clone() for p in inner} if args.muon else {}
        if not args.muon:
            rest += inner
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4)
        ]
        if args.muon:
            self.optimisers.append(
                torch.optim.Muon(
                    list(self.inner.values()), lr=args.lr, weight_decay=1e-3,
                    adjust_lr_fn="match_rms_adamw",
                )
            )  # fmt: skip
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}

    def loss(self, pictures: Tensor) -> Tensor:
        """The error after the autoencoder, and how far latents are from unit variance."""
        with (
            torch.autocast(DEVICE, torch.bfloat16),
            torch.set_grad_enabled(not self.args.decoder_only),
        ):
            latents = self.model["encoder"](pictures.contiguous(memory_format=torch.channels_last))
        latents = latents.float()
        noise = torch.rand(len(latents), 1, 1, 1, device=DEVICE) * LATENT_NOISE
        with torch.autocast(DEVICE, torch.bfloat16):
            output = self.model["decoder"](latents + noise * torch.randn_like(latents))
        loss = reconstruction_loss(output.float(), pictures)
        return loss if self.args.decoder_only else loss + SPREAD_WEIGHT * spread_loss(latents)

    def step(self, pictures: Tensor, share: float) -> Tensor:
        """One optimiser step; share is the part of the run's time that has passed."""
        rate = self.args.lr * min(1.0, 50 * share + 0.05) * max(0.02, (1 - share) ** 0.8)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        loss = self.loss(pictures.to(DEVICE))
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], 1.0)
        for parameter, flat in self.inner.items():
            flat.grad = parameter.grad.flatten(1)
        for optimiser in self.optimisers:
            optimiser.step()
        with torch.no_grad():
            for parameter, flat in self.inner.items():
                parameter.copy_(flat.view_as(parameter))
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 0.01)
        return loss.detach()

    def save(self) -> None:
        """Write the averaged weights."""
        part = self.args.out.with_suffix(".part")
        torch.save({"model": self.average}, part)
        part.rename(self.args.out)


@torch.no_grad()
def psnr(path: Path, count: int = 64) -> tuple[float, float, Tensor]:
    """Decibels of unseen scenes after the autoencoder: mean, worst; latents' std (C,)."""
    model = build_autoencoder()
    model.load_state_dict(torch.load(path, map_location="cpu")["model"])
    rng = Random("unseen")
    pictures = np.stack([render(sample_scene(rng)) for _ in range(count)])
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    latents = model["encoder"](batch)
    error = (model["decoder"](latents).clamp(0, 1) - batch).square().mean((1, 2, 3))
    each = -10 * error.log10()
    return float(-10 * error.mean().log10()), float(each.min()), latents.std((0, 2, 3))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, default=Path("pool"))
    parser.add_argument("--out", type=Path, default=Path("vae.pt"))
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--decoder-only", action="store_true")
    parser.add_argument("--muon", action="store_true")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--shards", type=int, default=12, help="at most so many in memory")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng, trainer, pictures = Random(args.seed), Trainer(args), Pictures(args.pool, args.shards)
    start, step, mean = time.monotonic(), 0, torch.zeros((), device=DEVICE)
    while (share := (time.monotonic() - start) / (60 * args.minutes)) < 1:
        loss = trainer.step(pictures.crops(rng, args.batch, args.crop), share)
        step += 1
        mean.lerp_(loss, max(0.01, 1 / step))
        if step % 100 == 0:
            logging.info("step %d, %.0f %%, loss %.4f", step, 100 * share, mean.item())
        if step % 400 == 0:
            trainer.save()
            pictures.refresh()
    trainer.save()
    mean_db, worst, std = psnr(args.out)
    logging.info(
        "%d steps; unseen scenes %.2f dB, worst %.2f dB; std %s", step, mean_db, worst, std
    )


if __name__ == "__main__":
    main()
