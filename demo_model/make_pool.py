"""Encode random scenes once, so that UNet training spends its time on the UNet.

Writes shards `pool_0000.pt`, `pool_0001.pt`, … of {scenes, latents} to a folder.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from random import Random

import numpy as np
import torch
from latents import picture_latents
from torch import Tensor
from world import Scene, render, sample_scene


def encode(scenes: list[Scene]) -> Tensor:
    """Latents of painted scenes: (N, 4, 16, 16) half precision."""
    pictures = torch.from_numpy(np.stack([render(scene) for scene in scenes]))
    return picture_latents(pictures.permute(0, 3, 1, 2).float().div(255)).half()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("pool"))
    parser.add_argument("--shards", type=int, default=24)
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--size", type=int, default=4096, help="scenes in a shard")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    for index in range(args.first, args.first + args.shards):
        rng = Random(f"pool {index}")
        scenes = [sample_scene(rng) for _ in range(args.size)]
        latents = torch.cat([encode(scenes[i : i + 32]) for i in range(0, args.size, 32)])
        part = args.folder / f"part_{index:04d}"
        torch.save({"scenes": scenes, "latents": latents}, part)
        part.rename(args.folder / f"pool_{index:04d}.pt")
        logging.info("shard %d, latent std %.3f", index, latents.float().std())


if __name__ == "__main__":
    main()
