"""Train the variant for instructions: the source picture as eight more channels.

InstructPix2Pix (arXiv:2211.09800, section 3.2): it starts from the text-to-image weights, the new
input weights at zero; picture, instruction, or both are left out in 5 % of the samples each. The
text encoder stays the text-to-image model's, so that one serves both; only words that captions
do not have ("turn", "make") learn their embedding. `--resume` goes on from a checkpoint.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from book.instructions import instruction_words
from book.networks import CONFIG, DEVICE, Vocabulary
from book.trainer import Trainer, argument_parser, train
from book.vae import LATENT_CHANNELS

PICTURES = ("original_image", "edited_image")
LATENT_SIZE = (16, 16)
LEFT_OUT = 0.05  # each of: picture, instruction, both
EMBEDDING = "text.transformer.text_model.embeddings.token_embedding.weight"
FIRST = "unet.input_blocks.0.0.weight"


class Pairs:
    """All pairs of data sets that `python -m p2p_pairs make` writes, as latents in memory."""

    def __init__(self, folders: Sequence[Path], weights: Path) -> None:
        """weights: of the autoencoder."""
        self.folders, self.vae = folders, CONFIG.load_demo_model(weights)[2]
        self.digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
        self.read: set[Path] = set()
        self.texts: list[str] = []
        self.kinds: list[str] = []
        self.sources = self.targets = torch.zeros(0, LATENT_CHANNELS, *LATENT_SIZE)
        self.refresh()

    def refresh(self) -> None:
        """Take in shards that arrived since."""
        paths = [path for folder in self.folders for path in folder.glob("parquet/*.parquet")]
        for path in sorted(set(paths) - self.read):
            self._take_in(path)
        if not self.texts:
            folders = ", ".join(map(str, self.folders))
            raise ValueError(
                f"{folders}: there are no pairs in parquet/*.parquet. Make some with "
                "python -m p2p_pairs make."
            )
        self.of_kind = [
            [i for i, kind in enumerate(self.kinds) if kind == name]
            for name in sorted(set(self.kinds))
        ]
        logging.info("%d pairs", len(self.texts))

    def _take_in(self, path: Path) -> None:
        rows = pq.read_table(path).to_pylist()
        latents = self._latents(path, rows)
        self.sources = torch.cat((self.sources, latents[PICTURES[0]]))
        self.targets = torch.cat((self.targets, latents[PICTURES[1]]))
        self.texts += [row["edit_prompt"] for row in rows]
        self.kinds += [row["kind"] for row in rows]
        self.read.add(path)

    def _latents(self, path: Path, rows: Sequence[dict]) -> dict[str, Tensor]:
        """The encoded pictures of a shard, kept beside it for the next run with these weights."""
        kept = path.parents[1] / "latents" / f"{path.stem}.{self.digest}.safetensors"
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            with torch.inference_mode():
                encoded = {name: self.vae.encode(_pixels(rows, name)).float() for name in PICTURES}
            save_file({name: part.cpu().contiguous() for name, part in encoded.items()}, kept)
        return load_file(kept)

    def batch(self, rng: Random, count: int, vocabulary: Vocabulary) -> tuple[Tensor, ...]:
        """Target latents (B, 8, 16, 16), instruction rows (B, 77), sources; every kind as often.

        Never mirrored: a mirrored latent is not a mirrored picture's.
        """
        chosen = [rng.choice(rng.choice(self.of_kind)) for _ in range(count)]
        left_out = torch.tensor([rng.random() for _ in chosen])
        sources = self.sources[chosen] * (left_out >= 2 * LEFT_OUT).view(-1, 1, 1, 1)
        empty = (left_out >= LEFT_OUT) & (left_out < 3 * LEFT_OUT)
        texts = ["" if gone else self.texts[i] for i, gone in zip(chosen, empty, strict=True)]
        rows = torch.tensor([vocabulary.encode(text) for text in texts])
        return self.targets[chosen], rows, sources


def _pixels(rows: Sequence[dict], name: str) -> Tensor:
    """A column of pictures, (B, 128, 128, 3) in 0…1."""
    files = (io.BytesIO(row[name]["bytes"]) for row in rows)
    pictures = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return torch.from_numpy(np.stack(pictures)).float() / 255


class InstructTrainer(Trainer):
    """The trainer with the source as further channels, and the text encoder held."""

    def is_trained(self, name: str) -> bool:
        """The UNet, and the embeddings of new words."""
        return name.startswith("unet.") or name == EMBEDDING

    def start_from(self, path: Path) -> None:
        """Take over the averaged weights of a text-to-image checkpoint of `Trainer.save`."""
        state = torch.load(path, map_location=DEVICE)
        for name, weight in self.master.items():
            given = state["average"][name]
            if name == EMBEDDING:
                old = self.known_rows(state["token_ids"])
                weight.copy_(given[old])
                weight[:-1][old[:-1] < 0] += 0.1 * torch.randn_like(weight[:-1][old[:-1] < 0])
            elif name == FIRST:
                weight.zero_()
                weight[:, : given.shape[1]] = given
            else:
                weight.copy_(given)
            self.average[name].copy_(weight)
        self.hold(state["token_ids"])

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of `save`."""
        super().load(path)
        self.hold(torch.load(path, map_location="cpu")["held"])

    def save(self, path: Path) -> None:
        """Write everything needed to continue, or to export."""
        super().save(path)
        torch.save({**torch.load(path), "held": self.held}, path)

    def known_rows(self, token_ids: Tensor) -> Tensor:
        """Row of every one of our tokens in a table of these tokens; -1 where it has none."""
        old = {token: row for row, token in enumerate(token_ids.tolist())}
        rows = [old.get(token, -1) for token in self.vocabulary.token_ids.tolist()]
        return torch.tensor([*rows, len(old)], device=DEVICE)

    def hold(self, token_ids: Tensor) -> None:
        """Keep the embeddings of these tokens, and the row of unknown ones, as they are."""
        self.held = token_ids.cpu()
        new = (self.known_rows(token_ids) < 0)[:, None]
        self.live[EMBEDDING].register_hook(lambda gradient: gradient * new)
        self.push()


def main() -> None:
    """Command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--pairs", type=Path, nargs="+", default=[Path("pairs")])
    parser.add_argument("--weights", type=Path, default=CONFIG.WEIGHTS_PATH, help="with the VAE")
    parser.add_argument("--start", type=Path, help="text-to-image weights to start from")
    parser.add_argument("--resume", type=Path)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    pairs = Pairs(args.pairs, args.weights)
    trainer = InstructTrainer(args, instruction_words(), 2 * LATENT_CHANNELS, LATENT_CHANNELS)
    if args.resume:
        trainer.load(args.resume)
    else:
        trainer.start_from(args.start)
    train(trainer, lambda rng: pairs.batch(rng, args.batch, trainer.vocabulary), pairs.refresh)


if __name__ == "__main__":
    main()
