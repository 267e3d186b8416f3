"""The inputs of nodes that score edits: encoders, a mask, and what they make of them."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host.lpips_network import NETWORKS, NONE
from .host.scorer import Scorer


def scorer_inputs() -> list[io.Input]:
    return [
        io.ClipVision.Input(
            "clip_vision",
            optional=True,
            tooltip="From CLIPVisionLoader: CLIP ViT-L, ViT-H or ViT-bigG, for similarities.",
        ),
        io.Clip.Input(
            "score_clip",
            optional=True,
            tooltip="The text encoder of the same CLIP, which reads the prompts: CLIP-L from "
            "CLIPLoader for ViT-L, SD2's for ViT-H, SDXL's for ViT-bigG. It need not be the "
            "checkpoint's; one that was fine-tuned with a checkpoint scores otherwise.",
        ),
        io.Mask.Input(
            "score_mask",
            optional=True,
            tooltip="What the edit may change, one or one a seed: PSNR, SSIM and LPIPS are then "
            "told inside and outside of it too.",
        ),
        io.ClipVision.Input(
            "dino",
            optional=True,
            advanced=True,
            tooltip="DINOv2 or DINOv3 from CLIPVisionLoader, for the structure distance by its "
            "keys (arXiv:2201.00424).",
        ),
        io.Combo.Input(
            "lpips",
            options=[NONE, *NETWORKS],
            default=NONE,
            optional=True,
            advanced=True,
            tooltip="LPIPS (arXiv:1801.03924) by this network, from files in models/lpips; the "
            "help of P2P Edit Scores names them.",
        ),
    ]


def scorer(
    clip_vision: Any = None,
    score_clip: Any = None,
    score_mask: Any = None,
    dino: Any = None,
    lpips: str = NONE,
    **others: Any,
) -> Scorer:
    """The scorer of these inputs; others: of the same node, not looked at."""
    return Scorer(clip_vision, score_clip, dino, score_mask, lpips)
