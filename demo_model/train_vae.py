"""Train the decoder: from the latents of `latents.py`, with some noise, to sharp pictures.

The encoder needs no training (see `vae.build_encoder`), so the latents are fixed and the UNet
can be trained before or beside the decoder.
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
from latents import picture_latents
from torch import Tensor, nn
from vae import build_decoder
from world import IMAGE_SIZE, render, sample_scene

LATENT_NOISE = 0.12


def crop_batch(rng: Random, count: int, size: int) -> Tensor:
    """Random crops around objects of fresh scenes: (count, 3, size, size) in [0, 1]."""
    crops = np.empty((count, size, size, 3), np.uint8)
    room = (IMAGE_SIZE - size) // 8
    for crop in crops:
        scene = sample_scene(rng)
        thing = rng.choice(scene.things)
        spread = 0.6 * thing.radius + 8
        left, top = (
            8 * min(room, max(0, round((at + rng.uniform(-spread, spread) - size / 2) / 8)))
            for at in (thing.x, thing.y)
        )
        crop[:] = render(scene)[top : top + size, left : left + size]
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(255)


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
    loss = (weight * (error.abs() + 4 * error.square())).mean()
    for a, b in zip(gradients(output), (dx, dy), strict=True):
        loss = loss + 0.5 * (a - b).abs().mean()
    return loss


class Trainer:
    """The decoder, its optimiser and its running average."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.decoder = build_decoder().to(memory_format=torch.channels_last)
        if args.resume:
            self.decoder.load_state_dict(torch.load(args.resume)["decoder"])
        self.optimiser = torch.optim.AdamW(
            self.decoder.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4
        )
        self.average = {k: v.clone() for k, v in self.decoder.state_dict().items()}

    def step(self, pictures: Tensor, share: float) -> float:
        """One optimiser step; share is the part of the run's time that has passed."""
        rate = self.args.lr * min(1.0, 50 * share + 0.05) * max(0.02, (1 - share) ** 0.7)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        latents = picture_latents(pictures)
        latents += torch.randn_like(latents) * (torch.rand(len(latents), 1, 1, 1) * LATENT_NOISE)
        with torch.autocast("cpu", torch.bfloat16):
            output = self.decoder(latents.contiguous(memory_format=torch.channels_last))
        loss = reconstruction_loss(output.float(), pictures)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
        self.optimiser.step()
        for name, value in self.decoder.state_dict().items():
            self.average[name].lerp_(value, 0.01)
        return loss.item()

    def save(self) -> None:
        """Write the averaged decoder."""
        part = self.args.out.with_suffix(".part")
        torch.save({"decoder": self.average}, part)
        part.rename(self.args.out)


@torch.no_grad()
def psnr(path: Path, count: int = 64) -> float:
    """Decibels of unseen pictures after encoding and decoding, without latent noise."""
    decoder = build_decoder()
    decoder.load_state_dict(torch.load(path)["decoder"])
    pictures = crop_batch(Random(-1), count, IMAGE_SIZE)
    error = (decoder(picture_latents(pictures)).clamp(0, 1) - pictures).square().mean()
    return float(-10 * error.log10())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("vae.pt"))
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng, trainer = Random(args.seed), Trainer(args)
    start, step, mean = time.monotonic(), 0, 0.0
    while (share := (time.monotonic() - start) / (60 * args.minutes)) < 1:
        loss = trainer.step(crop_batch(rng, args.batch, args.crop), share)
        step += 1
        mean += max(0.01, 1 / step) * (loss - mean)
        if step % 100 == 0:
            logging.info("step %d, %.0f %%, loss %.4f", step, 100 * share, mean)
        if step % 400 == 0:
            trainer.save()
    trainer.save()
    logging.info("%d steps; held-out PSNR %.2f dB", step, psnr(args.out))


if __name__ == "__main__":
    main()
