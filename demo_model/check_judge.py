"""The judge's own accuracy, on rendered scenes and on the same after the autoencoder."""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Callable
from random import Random

import numpy as np
import torch
from judge import judge
from networks import CONFIG
from world import render, sample_scene

Picture = np.ndarray


def round_trip() -> Callable[[Picture], Picture]:
    """A function that encodes and decodes a picture (H, W, 3) uint8 with the exported weights."""
    _, _, vae = CONFIG.load_demo_model()

    def pass_through(picture: Picture) -> Picture:
        with torch.inference_mode():
            decoded = vae.decode(vae.encode(torch.from_numpy(picture.copy())[None].float() / 255))
        return decoded[0].clamp(0, 1).mul(255).round().byte().numpy()

    return pass_through


def accuracy(count: int, change: Callable[[Picture], Picture], seed: int = 77) -> dict[str, float]:
    """Share of right answers for each attribute over random scenes."""
    rng, right = Random(seed), defaultdict(list)
    for _ in range(count):
        scene = sample_scene(rng)
        verdict = judge(change(render(scene)))
        right["background"].append(verdict.background == scene.background)
        right["number of objects"].append(len(verdict.objects) == len(scene.things))
        if len(verdict.objects) != len(scene.things):
            continue
        for found, thing in zip(verdict.objects, scene.things, strict=True):
            for name in ("shape", "colour", "texture"):
                right[name].append(getattr(found, name) == getattr(thing, name))
    return {name: float(np.mean(checks)) for name, checks in right.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger().setLevel(logging.INFO)
    torch.set_num_threads(1)
    for title, change, count in (
        ("rendered", lambda picture: picture, args.count),
        ("after the autoencoder", round_trip(), args.count // 4),
    ):
        for name, share in accuracy(count, change).items():
            logging.info("%-22s %-18s %6.2f %% of %d scenes", title, name, 100 * share, count)


if __name__ == "__main__":
    main()
