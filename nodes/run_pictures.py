"""The pictures of a run, for nodes that take them apart: decoded, or still a latent."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..p2p_core.record import Record
from .sockets import RecordSocket


def run_inputs() -> list[io.Input]:
    """record, images, samples, vae: of a run that is taken apart."""
    return [
        RecordSocket.Input(
            "record", optional=True, tooltip="Of P2P Edit or P2P Attention Controller."
        ),
        io.Image.Input("images", optional=True, lazy=True, tooltip="The run's decoded pictures."),
        io.Latent.Input(
            "samples", optional=True, lazy=True, tooltip="Instead of images: the sampler's output."
        ),
        io.Vae.Input("vae", optional=True, tooltip="Decodes the samples."),
    ]


def run_pictures(node: str, images: Tensor | None, samples: dict | None, vae: Any) -> Tensor:
    """The run's pictures, (B, H, W, 3); exactly one of both sources must be wired to the node."""
    if (images is None) == (samples is None):
        got = "neither" if images is None else "both"
        raise ValueError(f"{node} needs the run's images or its samples, but got {got}.")
    if images is not None:
        return images[..., :3]
    if vae is None:
        raise ValueError(f"{node} got samples without a VAE. Wire the checkpoint's VAE to vae.")
    assert samples is not None
    decoded = torch.as_tensor(vae.decode(samples["samples"]))[..., :3]
    return decoded.flatten(0, -4)  # a video's VAE gives every picture a time of its own


def by_seed(node: str, pictures: Tensor, record: Record) -> Tensor:
    """Pictures (B, H, W, 3) by their seeds, (seeds, group, H, W, 3): [source, edit, edit_2 …]."""
    group = len(record.labels)
    if len(pictures) % group:
        raise ValueError(
            f"{node} got {len(pictures)} pictures, but a run of this record makes {group} for "
            f"every seed ({', '.join(record.labels)}). Wire all pictures of one run, and the "
            "record of the same P2P Edit or P2P Attention Controller."
        )
    return pictures.unflatten(0, (-1, group))
