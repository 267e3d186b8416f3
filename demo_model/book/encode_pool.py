"""Encode painted shards once, so that UNet training spends its time on the UNet.

Writes `latents_0000.pt`, … of {scenes, latents} beside `scenes_0000.pt`, …
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from book.networks import DEVICE
from book.vae import build_encoder

BATCH = 16 if DEVICE == "cpu" else 512


def encode(encoder: nn.Module, pictures: Tensor) -> Tensor:
    """Latents (N, 8, 16, 16) in half precision of pictures (N, 128, 128, 3) uint8."""
    parts = (part.to(DEVICE).permute(0, 3, 1, 2).float().div(255) for part in pictures.split(BATCH))
    with torch.autocast(DEVICE, torch.bfloat16):
        latents = [encoder(part).cpu() for part in parts]
    return torch.cat(latents).half()


def load_encoder(path: Path) -> nn.Module:
    """The encoder of a checkpoint of `train_vae.py`."""
    encoder = build_encoder()
    state = torch.load(path, map_location=DEVICE)["model"]
    prefix = "encoder."
    encoder.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    return encoder.to(DEVICE, memory_format=torch.channels_last)


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
        latents = encode(encoder, shard["pictures"])
        part = out.with_suffix(".part")
        torch.save({"scenes": shard["scenes"], "latents": latents}, part)
        part.rename(out)
        logging.info("%s, std %.3f", out.name, latents.float().std())


if __name__ == "__main__":
    main()
