"""Train UNet and text encoder of the picture book on its encoded scenes; resumable.

`--resume unet.pt` goes on from a checkpoint with its weights, running average and optimisers.
In the first part of a run most noise levels are those that decide what is where.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from book.networks import Vocabulary
from book.trainer import Trainer, argument_parser, train
from book.vae import LATENT_CHANNELS
from book.world import Scene, caption_words, describe

CAPTION_DROP = 0.1
UNKNOWN_WORD = 0.03


class Pool:
    """All encoded scenes on disk; `refresh` takes in shards that arrived since."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: set[str] = set()
        self.scenes: list[Scene] = []
        self.latents = torch.empty(0, LATENT_CHANNELS, 16, 16, dtype=torch.half)
        self.refresh()

    def refresh(self) -> None:
        """Read new shards."""
        for path in sorted(self.folder.glob("latents_*.pt")):
            if path.name not in self.names:
                shard = torch.load(path, weights_only=False)
                self.names.add(path.name)
                self.scenes += shard["scenes"]
                self.latents = torch.cat((self.latents, shard["latents"]))
        if not self.scenes:
            raise FileNotFoundError(
                f"{self.folder} holds no latents_*.pt; run encode_pool.py first."
            )
        logging.info("%d scenes", len(self.scenes))

    def batch(self, rng: Random, count: int, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
        """Latents (B, 8, 16, 16) and caption rows (B, 77)."""
        chosen = [rng.randrange(len(self.scenes)) for _ in range(count)]
        texts = [
            "" if rng.random() < CAPTION_DROP else describe(self.scenes[i], rng).text
            for i in chosen
        ]
        texts = [f"unknown {text}" if rng.random() < UNKNOWN_WORD else text for text in texts]
        rows = torch.tensor([vocabulary.encode(text) for text in texts])
        return self.latents[chosen].float(), rows


def main() -> None:
    """Command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--pool", type=Path, default=Path("pool"))
    parser.add_argument("--resume", type=Path)
    parser.set_defaults(layout_share=0.6)
    args: argparse.Namespace = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    torch.set_num_threads(1)
    pool = Pool(args.pool)
    torch.manual_seed(args.seed)
    trainer = Trainer(args, caption_words(), LATENT_CHANNELS, LATENT_CHANNELS)
    if args.resume:
        trainer.load(args.resume)
    train(trainer, lambda rng: pool.batch(rng, args.batch, trainer.vocabulary), pool.refresh)


if __name__ == "__main__":
    main()
