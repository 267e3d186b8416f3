"""Put the trained parts into half-precision checkpoints that the host loads.

`p2p_demo.safetensors` holds the text-to-image UNet, the text encoder and the autoencoder;
`p2p_demo_instruct.safetensors` only the UNet for instructions, since it shares the rest.
"""

from __future__ import annotations

import argparse
import logging
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from book.networks import CONFIG
from book.vae import build_autoencoder

EMBEDDING = "transformer.text_model.embeddings.token_embedding"


def text_weights(average: dict[str, Tensor], token_ids: Tensor) -> dict[str, Tensor]:
    """Text encoder weights under the host's names; the vocabulary stays short."""
    weights = {k.removeprefix("text."): v for k, v in average.items() if k.startswith("text.")}
    weights.pop("transformer.text_projection.weight")  # the identity, set when loading
    weights[f"{EMBEDDING}.rows"] = weights.pop(f"{EMBEDDING}.weight")
    weights[f"{EMBEDDING}.token_ids"] = token_ids
    return weights


def unet_weights(state: dict, marker: str) -> dict[str, Tensor]:
    """A UNet under the host's names, and the key by which the host knows the checkpoint."""
    weights = {
        k.replace("unet.", "model.diffusion_model.", 1): v
        for k, v in state["average"].items()
        if k.startswith("unet.")
    }
    return {**weights, marker: torch.tensor(1, dtype=torch.int32)}


def shared_weights(text_state: dict, vae_state: dict) -> dict[str, Tensor]:
    """Text encoder and autoencoder."""
    autoencoder = build_autoencoder()
    autoencoder.load_state_dict(vae_state["model"])
    parts = {
        "cond_stage_model.": text_weights(text_state["average"], text_state["token_ids"]),
        "first_stage_model.taesd_encoder.": autoencoder["encoder"].state_dict(),
        "first_stage_model.taesd_decoder.": autoencoder["decoder"].state_dict(),
        "first_stage_model.": {"vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)},
    }
    return {prefix + k: v for prefix, part in parts.items() for k, v in part.items()}


def write(weights: dict[str, Tensor], path: Path) -> None:
    """Floating point weights in half precision."""
    halved = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    save_file({k: v.detach().contiguous() for k, v in halved.items()}, path)
    path.chmod(0o644)
    logging.info("%s: %.2f MiB", path, path.stat().st_size / 2**20)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--unet", type=Path, default=Path("unet.pt"))
    parser.add_argument("--instruct", type=Path, help="the UNet for instructions")
    parser.add_argument("--vae", type=Path, default=Path("vae.pt"))
    parser.add_argument("--folder", type=Path, default=CONFIG.FOLDER)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    load = partial(torch.load, map_location="cpu")
    unet, text = load(args.unet), load(args.instruct or args.unet)
    shared = shared_weights(text, load(args.vae))
    write(
        {**unet_weights(unet, CONFIG.MARKER_KEY), **shared}, args.folder / CONFIG.WEIGHTS_PATH.name
    )
    if args.instruct:
        instruct = unet_weights(text, CONFIG.INSTRUCT_KEY)
        write(instruct, args.folder / CONFIG.INSTRUCT_PATH.name)


if __name__ == "__main__":
    main()
