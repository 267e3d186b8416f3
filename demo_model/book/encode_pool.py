"""Encode painted shards once, so that UNet training spends its time on the UNet.

Writes `latents_0000.pt`, … of {scenes, latents} beside `scenes_0000.pt`, …
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from book.vae import build_encoder
from book.world import render


def encode(encoder: nn.Module, pictures: Tensor) -> Tensor:
    """Latents (N, 8, 16, 16) in half precision of pictures (N, 128, 128, 3) uint8."""
    with torch.autocast("cpu", torch.bfloat16):
        batches = [
            encoder(part.permute(0, 3, 1, 2).float().div(255).to(memory_format=torch.channels_last))
            for part in pictures.split(16)
        ]
    return torch.cat(batches).half()


def load_encoder(path: Path) -> nn.Module:
    """The encoder of a checkpoint of `train_vae.py`."""
    encoder = build_encoder()
    state = torch.load(path)["model"]
    prefix = "encoder."
    encoder.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    return encoder.to(memory_format=torch.channels_last)


@torch.inference_mode()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("pool"))
    parser.add_argument("--vae", type=Path, default=Path("vae.pt"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    torch.set_num_threads(1)
    encoder = load_encoder(args.vae)
    for path in sorted(args.folder.glob("scenes_*.pt")):
        out = path.with_name(path.name.replace("scenes", "latents"))
        if out.exists():
            continue
        shard = torch.load(path, weights_only=False)
        pictures = shard["pictures"]
        for index, scene in enumerate(shard["scenes"]):
            if scene.pencil:
                pictures[index] = torch.from_numpy(render(scene))
        latents = encode(encoder, pictures)
        part = out.with_suffix(".part")
        torch.save({"scenes": shard["scenes"], "latents": latents}, part)
        part.rename(out)
        logging.info("%s, std %.3f", out.name, latents.float().std())


if __name__ == "__main__":
    main()
