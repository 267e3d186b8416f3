"""Whether a CLIP's text projection was in its file.

The checkpoints of SD1.5, and CLIP-L in SDXL's, come without one, since pictures are made without
it. The host then leaves those weights as the memory happened to be, and says nothing. So a
projection counts only if the very numbers stand in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import comfy.utils
import torch
from safetensors import safe_open
from torch import Tensor

PROJECTION = "text_projection"
NEEDED = (
    "Similarity of pictures and captions needs it. Load the whole CLIP-L with CLIPLoader (type "
    "stable_diffusion), or use SDXL's OpenCLIP-G with CLIP ViT-bigG, or SD2's CLIP with ViT-H"
)


def check_text_projection(clip: Any, encoder: Any, name: str) -> None:
    """ValueError unless the encoder's text projection is known to be the file's."""
    files = clip_files(clip)
    weight = encoder.transformer.text_projection.weight
    if not files:
        if encoder.options_default[2] and name != "CLIP-L":
            return  # the host itself reads it, for what such a model is conditioned on
        raise ValueError(
            f"Whether this {name} came with its text projection is not known, since the node that "
            f"loaded it does not tell its file. {NEEDED}."
        )
    if not any(_equal(weight, stored) for file in files for stored in _projections(file)):
        raise ValueError(
            f"This {name} came without its text projection, which checkpoints of SD1.5 and SDXL "
            f"leave out. {NEEDED}."
        )


def clip_files(clip: Any) -> list[str]:
    """The files that the host's own loaders made a CLIP from; empty if they are not known."""
    made = getattr(clip.patcher, "cached_patcher_init", None)
    if made is None:
        return []
    files = made[1][0]
    return [files] if isinstance(files, str) else list(files)


def _projections(file: str) -> Iterator[Tensor]:
    """All text projections in a file."""
    if file.lower().endswith((".safetensors", ".sft")):
        with safe_open(file, framework="pt") as tensors:
            found = [key for key in tensors.keys() if PROJECTION in key]  # noqa: SIM118
            yield from map(tensors.get_tensor, found)
        return
    loaded: Any = comfy.utils.load_torch_file(file, safe_load=True)
    yield from (value for key, value in loaded.items() if PROJECTION in key)


def _equal(weight: Tensor, stored: Tensor) -> bool:
    """Whether these are the same weights, which OpenCLIP stores transposed."""
    if weight.shape != stored.shape:
        return False
    stored = stored.to(weight)
    return torch.equal(weight, stored) or torch.equal(weight, stored.T)
