"""Paint random scenes once: shards `scenes_0000.pt`, … of {scenes, pictures} in a folder.

The autoencoder trains on the pictures, `encode_pool.py` turns them into latents for the UNet.
"""

from __future__ import annotations

import argparse
import logging
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from random import Random

import numpy as np
import torch

from book.world import render, sample_scene


def paint(folder: Path, size: int, index: int) -> Path:
    """Write one shard."""
    rng = Random(f"book {index}")
    scenes = [sample_scene(rng) for _ in range(size)]
    pictures = torch.from_numpy(np.stack([render(scene) for scene in scenes]))
    part = folder / f"part_{index:04d}"
    torch.save({"scenes": scenes, "pictures": pictures}, part)
    return part.rename(folder / f"scenes_{index:04d}.pt")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("pool"))
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--size", type=int, default=2048, help="scenes in a shard")
    parser.add_argument("--workers", type=int, default=1, help="processes that paint")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    args.folder.mkdir(parents=True, exist_ok=True)
    with Pool(args.workers) as workers:
        indices = range(args.first, args.first + args.shards)
        for done in workers.imap(partial(paint, args.folder, args.size), indices):
            logging.info("%s", done)


if __name__ == "__main__":
    main()
