"""Train the picture book's variant for instructions: the source picture as eight more channels.

InstructPix2Pix (arXiv:2211.09800, section 3.2): it starts from the text-to-image weights, the new
input weights at zero; picture, instruction, or both are left out in 5 % of the samples each.
`--resume` goes on from a checkpoint with its running average and optimisers.
"""

from __future__ import annotations

import logging
from pathlib import Path
from random import Random

import torch
from networks import Vocabulary
from torch import Tensor
from train_instruct import LEFT_OUT, InstructTrainer
from train_unet import argument_parser, train

from book.instructions import instruction_words
from book.vae import LATENT_CHANNELS


class Pairs:
    """All pairs on disk; `refresh` takes in shards that arrived since."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refresh()

    def refresh(self) -> None:
        """Read all shards."""
        paths = sorted(self.folder.glob("pairs_*.pt"))
        if not paths:
            raise FileNotFoundError(f"{self.folder} holds no pairs_*.pt; run make_pairs.py first.")
        shards = [torch.load(path) for path in paths]
        self.texts: list[str] = [text for shard in shards for text in shard["instructions"]]
        self.sources = torch.cat([shard["sources"] for shard in shards]).float()
        self.targets = torch.cat([shard["targets"] for shard in shards]).float()
        logging.info("%d pairs", len(self.texts))

    def batch(self, rng: Random, count: int, vocabulary: Vocabulary) -> tuple[Tensor, ...]:
        """Target latents (B, 8, 16, 16), instruction rows (B, 77), source latents."""
        chosen = [rng.randrange(len(self.texts)) for _ in range(count)]
        left_out = torch.tensor([rng.random() for _ in chosen])
        sources = self.sources[chosen] * (left_out >= 2 * LEFT_OUT).view(-1, 1, 1, 1)
        empty = (left_out >= LEFT_OUT) & (left_out < 3 * LEFT_OUT)
        texts = ["" if gone else self.texts[i] for i, gone in zip(chosen, empty, strict=True)]
        rows = torch.tensor([vocabulary.encode(text) for text in texts])
        return self.targets[chosen], rows, sources


def main() -> None:
    """Command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--pairs", type=Path, default=Path("pairs"))
    parser.add_argument("--start", type=Path, help="text-to-image weights to start from")
    parser.add_argument("--resume", type=Path)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng, pairs = Random(args.seed), Pairs(args.pairs)
    trainer = InstructTrainer(args, instruction_words(), 2 * LATENT_CHANNELS, LATENT_CHANNELS)
    if args.resume:
        trainer.load(args.resume)
    else:
        trainer.start_from(args.start)
    train(trainer, lambda: pairs.batch(rng, args.batch, trainer.vocabulary), pairs.refresh)


if __name__ == "__main__":
    main()
