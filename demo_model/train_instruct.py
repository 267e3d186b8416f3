"""Train the instruction variant: the demo model with the source picture as four more channels.

InstructPix2Pix (arXiv:2211.09800, section 3.2): it starts from the text-to-image weights, the new
input weights at zero; picture, instruction, or both are left out in 5 % of the samples each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from instructions import EXTRA_WORDS, Instruction
from networks import Vocabulary
from torch import Tensor
from train_unet import Trainer, argument_parser, caption_words, train

LEFT_OUT = 0.05  # each of: picture, instruction, both
EMBEDDING = "text.transformer.text_model.embeddings.token_embedding.weight"
FIRST = "unet.input_blocks.0.0.weight"
SLACK = 1  # cells of plain background that stay at every border
APART = 0.3  # latent distance from the corner that makes a cell part of the object


class Pairs:
    """All pairs on disk, mirrored and moved about at random."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refresh()

    def refresh(self) -> None:
        """Read all shards, also those that arrived since."""
        paths = sorted(self.folder.glob("pairs_*.pt"))
        if not paths:
            raise FileNotFoundError(f"{self.folder} holds no pairs_*.pt; run make_pairs.py first.")
        shards = [torch.load(path, weights_only=False) for path in paths]
        self.instructions: list[Instruction] = [i for s in shards for i in s["instructions"]]
        self.sources = torch.cat([shard["sources"] for shard in shards]).float()
        self.targets = torch.cat([shard["targets"] for shard in shards]).float()
        logging.info("%d pairs", len(self.instructions))

    def batch(self, rng: Random, count: int, vocabulary: Vocabulary) -> tuple[Tensor, ...]:
        """Target latents (B, 4, 16, 16), instruction rows (B, 77), source latents."""
        pairs, texts = [], []
        for _ in range(count):
            chosen = rng.randrange(len(self.instructions))
            pair = torch.stack((self.sources[chosen], self.targets[chosen]))
            pair = moved(rng, pair.flip(-1) if rng.random() < 0.5 else pair)
            left_out = rng.random()
            if left_out < 2 * LEFT_OUT:
                pair[0] = 0
            empty = LEFT_OUT <= left_out < 3 * LEFT_OUT
            texts.append("" if empty else self.instructions[chosen].text)
            pairs.append(pair)
        sources, targets = torch.stack(pairs, dim=1)
        rows = torch.tensor([vocabulary.encode(text) for text in texts])
        return targets, rows, sources


def moved(rng: Random, pair: Tensor) -> Tensor:
    """A pair (2, C, h, w), shifted by whole cells, with its objects still inside."""
    corners = pair[:, :, :1, :1]
    object_ = ((pair - corners).abs().amax(dim=1) > APART).any(dim=0)
    for axis in (0, 1):
        places = object_.any(dim=1 - axis).nonzero()
        if not len(places):
            return pair
        size = object_.shape[axis]
        low, high = int(places.min()), int(places.max())
        room = max(low - SLACK, 0), max(size - 1 - high - SLACK, 0)
        shift = rng.randint(-room[0], room[1])
        index = (torch.arange(size) - shift).clamp(0, size - 1)
        pair = pair.index_select(axis + 2, index)
        object_ = object_.index_select(axis, index)
    return pair


class InstructTrainer(Trainer):
    """The trainer with eight input channels and the words of instructions."""

    def start_from(self, path: Path) -> None:
        """Take over the averaged weights of a text-to-image checkpoint of `Trainer.save`."""
        state = torch.load(path)
        old = {int(token): row for row, token in enumerate(state["token_ids"])}
        for name, weight in self.master.items():
            given = state["average"][name]
            if name == EMBEDDING:
                for row, token in enumerate(self.vocabulary.token_ids.tolist()):
                    weight[row] = given[old.get(token, -1)]
            elif name == FIRST:
                weight.zero_()
                weight[:, : given.shape[1]] = given
            else:
                weight.copy_(given)
            self.average[name].copy_(weight)
        self.push()


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
    trainer = InstructTrainer(args, {*caption_words(), *EXTRA_WORDS}, in_channels=8)
    resume: Callable[[Path], None] = trainer.load if args.resume else trainer.start_from
    resume(args.resume or args.start)
    train(trainer, lambda: pairs.batch(rng, args.batch, trainer.vocabulary), pairs.refresh)


if __name__ == "__main__":
    main()
