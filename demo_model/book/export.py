"""Put the picture book's trained parts into one half-precision checkpoint that the host loads."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from export import text_weights
from networks import CONFIG
from safetensors.torch import save_file
from torch import Tensor

from book.vae import LATENT_CHANNELS, build_autoencoder


def checkpoint(unet_state: dict, vae_state: dict) -> dict[str, Tensor]:
    """All weights, floating point ones in half precision."""
    average = unet_state["average"]
    channels = average["unet.input_blocks.0.0.weight"].shape[1]
    marker = CONFIG.BOOK_KEY if channels == LATENT_CHANNELS else CONFIG.BOOK_INSTRUCT_KEY
    autoencoder = build_autoencoder()
    autoencoder.load_state_dict(vae_state["model"])
    parts = {
        "model.diffusion_model.": {
            k.removeprefix("unet."): v for k, v in average.items() if k.startswith("unet.")
        },
        "cond_stage_model.": text_weights(average, unet_state["token_ids"]),
        "first_stage_model.taesd_encoder.": autoencoder["encoder"].state_dict(),
        "first_stage_model.taesd_decoder.": autoencoder["decoder"].state_dict(),
        "first_stage_model.": {"vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)},
        "": {marker: torch.tensor(1, dtype=torch.int32)},
    }
    weights = {prefix + k: v for prefix, part in parts.items() for k, v in part.items()}
    return {
        k: (v.detach().half() if v.is_floating_point() else v).contiguous()
        for k, v in weights.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unet", type=Path, default=Path("unet.pt"))
    parser.add_argument("--vae", type=Path, default=Path("vae.pt"))
    parser.add_argument("--out", type=Path, default=CONFIG.BOOK_PATH)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    save_file(checkpoint(torch.load(args.unet), torch.load(args.vae)), args.out)
    args.out.chmod(0o644)
    logging.info("%s: %.2f MiB", args.out, args.out.stat().st_size / 2**20)


if __name__ == "__main__":
    main()
