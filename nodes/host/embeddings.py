"""What the host's CLIP Vision, CLIP and DINO make of pictures and captions, for scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.clip_model
import torch
from torch import Tensor

from .text_projection import check_text_projection

BATCH = 16  # pictures at once
NAMES = {"l": "CLIP-L", "h": "OpenCLIP-H", "g": "OpenCLIP-G"}
CLIP_FILES = (
    "CLIP ViT-L goes with CLIP-L (SD1.5), ViT-H with SD2's text encoder, ViT-bigG with SDXL's "
    "OpenCLIP-G"
)


@torch.no_grad()
def image_embeddings(clip_vision: Any, pictures: Tensor) -> Tensor:
    """Pictures (B, H, W, 3) in CLIP's common space, (B, D); cropped to squares, as CLIP does.

    Raises ValueError for an encoder that is no CLIP's, or that comes without its projection.
    """
    config = clip_vision.config
    if clip_vision.model_type != "clip_vision_model" or "projection_dim" not in config:
        raise ValueError(
            f"clip_vision is a {clip_vision.model_type.replace('_', ' ')}, which shares no space "
            "with a CLIP text encoder. Load CLIP ViT-L, ViT-H or ViT-bigG with CLIPVisionLoader."
        )
    found = [
        clip_vision.encode_image(part, crop=True)["image_embeds"] for part in pictures.split(BATCH)
    ]
    return torch.cat(found).float().cpu()


@torch.no_grad()
def text_embeddings(clip: Any, captions: Sequence[str], width: int) -> Tensor:
    """Captions in CLIP's common space, (len(captions), D = width), by the encoder of that width.

    Captions are read as prompts are; of a long one the first 75 tokens count. Raises ValueError if
    the CLIP has no text encoder of that width, or none with its text projection.
    """
    name, encoder = _encoder(clip, width)
    check_text_projection(clip, encoder, NAMES[name])
    found = []
    for caption in captions:
        tokens = clip.tokenize(caption)
        clip.load_model(tokens)
        encoder.reset_clip_options()
        encoder.set_clip_options(
            {"projected_pooled": True, "execution_device": clip.patcher.load_device}
        )
        try:
            found.append(encoder.encode_token_weights(tokens[name])[1])
        finally:
            encoder.reset_clip_options()
    return torch.cat(found).float().cpu()


def _encoder(clip: Any, width: int) -> tuple[str, Any]:
    """The CLIP's text encoder whose projection has this width, and its short name."""
    model = None if clip is None else clip.cond_stage_model
    encoders: dict[str, Any] = {name: getattr(model, f"clip_{name}", None) for name in NAMES}
    widths = {
        name: encoder.transformer.text_projection.out_features
        for name, encoder in encoders.items()
        if isinstance(getattr(encoder, "transformer", None), comfy.clip_model.CLIPTextModel)
    }
    for name, own in widths.items():
        if own == width:
            return name, encoders[name]
    has = ", ".join(f"{NAMES[name]} of width {own}" for name, own in widths.items())
    raise ValueError(
        f"clip_vision writes embeddings of width {width}, but the CLIP for captions has "
        f"{has or 'no CLIP text encoder'}. Both must be of one CLIP: {CLIP_FILES}. The encoder "
        "may be another than the checkpoint's: load it with CLIPLoader."
    )


@torch.no_grad()
def structure_keys(dino: Any, pictures: Tensor) -> Tensor:
    """Keys of a DINO's last layer for whole pictures (B, H, W, 3), squeezed to squares: (B, T, D).

    Splice (arXiv:2201.00424) and PIE-Bench take them from DINO ViT-B/8; the host loads DINOv2 and
    DINOv3. Raises ValueError for another encoder.
    """
    layers = [
        module
        for name, module in dino.model.named_modules()
        if dino.model_type.startswith("dino")
        and name.endswith(("attention.key", "attention.k_proj"))
    ]
    if not layers:
        raise ValueError(
            f"dino is a {dino.model_type.replace('_', ' ')}. Load a DINOv2 or DINOv3 model with "
            "CLIPVisionLoader, or leave dino out for the plain structure distance."
        )
    kept: list[Tensor] = []
    handle = layers[-1].register_forward_hook(lambda _, __, keys: kept.append(keys.float().cpu()))
    try:
        for part in pictures.split(BATCH):
            dino.encode_image(part, crop=False)
    finally:
        handle.remove()
    return torch.cat(kept)
