"""Train UNet and text encoder on the pool of encoded scenes; resumable.

Noise prediction on Stable Diffusion's schedule. The networks run in bfloat16; the optimiser
and the running average work on float32 master copies of the weights.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import torch
from make_pool import Scene
from networks import (
    TextEncoder,
    Vocabulary,
    build_unet,
    initialise,
    mix_padding,
    predict_noise,
    scaled_linear_alphas,
)
from torch import Tensor, nn
from world import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, TEXTURES, describe

CAPTION_DROP = 0.1
WORDS_ONLY = 0.92  # share of samples whose end-of-text and padding outputs say nothing
UNKNOWN_WORD = 0.03
SHAPE_TIMES = (0.45, 0.95)  # shares of the schedule
EMA_EVERY = 8


def caption_words() -> list[str]:
    """Every word of the caption grammar."""
    phrases = [*SHAPES, *COLOURS, *BACKGROUNDS, *TEXTURES, *SIZES, *POSITIONS]
    phrases += ["a painting of", "an", "and", "on a background"]
    return sorted({word for phrase in phrases for word in phrase.split()})


def share_kept(scene: Scene, shapes_first: bool) -> float:
    """Share of such scenes that is trained on: single plain objects come first.

    Pairs are always rarer than in the world; with shapes_first so are textures and small
    objects, whose shapes are hard to see.
    """
    share = 0.2 if len(scene.things) > 1 else 1.0
    if shapes_first:
        share *= 0.25 if any(thing.texture for thing in scene.things) else 1.0
        share *= 0.2 if any(thing.size == "small" for thing in scene.things) else 1.0
    return share


def draw_times(count: int, shapes_first: bool) -> Tensor:
    """Schedule steps (B,), one per stratum: less variance than independent draws.

    With shapes_first three quarters lie where the noise hides shapes, but not yet everything.
    """
    share = (torch.arange(count) + torch.rand(count)) / count
    if shapes_first:
        low, high = SHAPE_TIMES
        share = torch.where(share < 0.75, low + (high - low) * share / 0.75, (share - 0.75) * 4)
    return (share * 1000).long()


def is_hidden_matrix(name: str, weight: Tensor) -> bool:
    """True for weights between hidden features: linear layers and inner convolutions."""
    outer = ("embedding", "unet.input_blocks.0.", "unet.out.")
    return weight.ndim > 1 and not any(part in name for part in outer)


class Pool:
    """All encoded scenes on disk; `refresh` takes in shards that arrived since."""

    def __init__(self, folder: Path, shapes_first: bool) -> None:
        self.folder, self.shapes_first = folder, shapes_first
        self.names: set[str] = set()
        self.scenes: list[Scene] = []
        self.latents = torch.empty(0, 4, 16, 16, dtype=torch.half)
        self.refresh()

    def refresh(self) -> None:
        """Read new shards."""
        for path in sorted(self.folder.glob("pool_*.pt")):
            if path.name not in self.names:
                shard = torch.load(path, weights_only=False)
                self.names.add(path.name)
                rng = Random(path.name)
                scenes = shard["scenes"]
                shares = [share_kept(scene, self.shapes_first) for scene in scenes]
                kept = [i for i, share in enumerate(shares) if rng.random() < share]
                self.scenes += [scenes[i] for i in kept]
                self.latents = torch.cat((self.latents, shard["latents"][kept]))
        if not self.scenes:
            raise FileNotFoundError(f"{self.folder} holds no pool_*.pt; run make_pool.py first.")

    def batch(self, rng: Random, count: int, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
        """Latents (B, 4, 16, 16) and caption rows (B, 77)."""
        chosen = [rng.randrange(len(self.scenes)) for _ in range(count)]
        texts = [
            "" if rng.random() < CAPTION_DROP else describe(self.scenes[i], rng).text
            for i in chosen
        ]
        texts = [f"unknown {t}" if rng.random() < UNKNOWN_WORD else t for t in texts]
        rows = torch.tensor([vocabulary.encode(text) for text in texts])
        return self.latents[chosen].float(), rows


class Trainer:
    """Networks, master weights, optimiser, running average."""

    def __init__(
        self,
        args: argparse.Namespace,
        words: Iterable[str],
        in_channels: int = 4,
        out_channels: int = 4,
    ) -> None:
        self.args = args
        self.vocabulary = Vocabulary(words)
        self.unet = build_unet(in_channels, out_channels)
        self.text = TextEncoder(len(self.vocabulary))
        initialise(self.unet, self.text)
        both = nn.ModuleDict({"unet": self.unet, "text": self.text})
        self.master = {k: v.detach().clone() for k, v in both.named_parameters()}
        self.average = {k: v.clone() for k, v in self.master.items()}
        self.step_count = 0
        both.to(torch.bfloat16).to(memory_format=torch.channels_last)
        self.live = dict(both.named_parameters())
        self.live.pop("text.transformer.text_projection.weight")  # unused, stays the identity
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
            torch.optim.AdamW(
                rest, lr=args.lr, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0, fused=True
            ),
        )
        self.alphas = scaled_linear_alphas()
        self.end = self.vocabulary.rows[self.vocabulary.end]
        self.empty = torch.tensor([self.vocabulary.encode("")])

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of `save`."""
        state = torch.load(path)
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
        names = list(self.live)
        torch._foreach_copy_([self.live[k] for k in names], [self.master[k] for k in names])

    def loss(self, latents: Tensor, rows: Tensor, image: Tensor | None = None) -> Tensor:
        """Weighted noise-prediction error: weight min(1 + 1/snr, weight_cap).

        latents: (B, C, h, w); rows: (B, 77) of the vocabulary; image: (B, C, h, w), further input.
        """
        count = len(latents)
        times = draw_times(count, self.args.shapes_first)
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        x = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        context = self.text(torch.cat((rows, self.empty)))
        words_only = torch.rand(count) < WORDS_ONLY
        context = mix_padding(context[:-1], context[-1:], rows, self.end, words_only)
        x = x if image is None else torch.cat((x, image), dim=1)
        x = x.bfloat16().contiguous(memory_format=torch.channels_last)
        error = predict_noise(self.unet, x, times, context).float() - noise
        weight = (1 + (1 - alpha) / alpha).clamp_max(self.args.weight_cap)
        return (weight * error.square()).mean()

    def step(self, rate: float, *batch: Tensor) -> float:
        """One optimiser step at a learning rate, on a batch for `loss`."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        loss = self.loss(*batch)
        loss.backward()
        with torch.no_grad():
            for name, parameter in self.live.items():
                self.master[name].grad = parameter.grad.float()
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
        return loss.item()


def learning_rate(base: float, step: int, share: float) -> float:
    """Warm-up over 200 steps, cosine to a twentieth at the end of the run's time."""
    return base * min(1.0, (step + 1) / 200) * (0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2)


def train(
    trainer: Trainer,
    next_batch: Callable[[], tuple[Tensor, ...]],
    on_save: Callable[[], None] = lambda: None,
) -> None:
    """Train for the minutes that were asked for, with a checkpoint every 400 steps."""
    args = trainer.args
    start, first, mean = time.monotonic(), trainer.step_count, 0.0
    while (share := (time.monotonic() - start) / (60 * args.minutes)) < 1:
        rate = learning_rate(args.lr, trainer.step_count - first, share)
        loss = trainer.step(rate, *next_batch())
        done = trainer.step_count - first
        mean += max(0.01, 1 / done) * (loss - mean)
        if done % 100 == 0:
            speed = done * args.batch / (time.monotonic() - start)
            logging.info(
                "step %d, lr %.1e, loss %.4f, %.0f/s", trainer.step_count, rate, mean, speed
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
    parser.add_argument("--shapes-first", action="store_true", help="see share_kept, draw_times")
    parser.add_argument("--weight-cap", type=float, default=20.0, help="see Trainer.loss")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> None:
    """Command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--pool", type=Path, default=Path("pool"))
    parser.add_argument("--resume", type=Path)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng, pool = Random(args.seed), Pool(args.pool, args.shapes_first)
    trainer = Trainer(args, caption_words())
    if args.resume:
        trainer.load(args.resume)
    train(trainer, lambda: pool.batch(rng, args.batch, trainer.vocabulary), pool.refresh)


if __name__ == "__main__":
    main()
