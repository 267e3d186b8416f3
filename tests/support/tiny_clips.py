"""CLIP's two encoders in miniature, as files with the real ones' keys, for the host's loaders.

Depths are CLIP ViT-L's, by which the host tells them; widths are small, so the host is told them
while it loads. Weights are random.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import comfy.clip_vision
import comfy.sd
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.sd import CLIP
from safetensors.torch import save_file
from tiny_model import randomize

WIDTH = 64  # of the common space
LAYERS = {"intermediate_size": 64, "num_attention_heads": 4}
TEXT = {**LAYERS, "hidden_size": WIDTH, "num_hidden_layers": 3}
IMAGE_SIZE = 28
VISION = {
    **LAYERS,
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "num_hidden_layers": 24,
    "image_size": IMAGE_SIZE,
    "patch_size": 14,
    "num_channels": 3,
    "hidden_act": "quick_gelu",
    "projection_dim": WIDTH,
}
DINO = {
    "model_type": "dinov2",
    "hidden_size": 32,
    "num_hidden_layers": 24,
    "num_attention_heads": 4,
    "image_size": 518,  # older hosts know no other
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
    "use_swiglu_ffn": False,
}


def text_encoder(folder: Path, projection: bool = True, seed: int = 1) -> CLIP:
    """A CLIP-L by the host's loader. projection: whether its text projection is in the file."""
    options: dict[str, Any] = {"model_config": dict(TEXT), "dtype": torch.float32}
    return comfy.sd.load_clip([str(text_file(folder, projection, seed))], model_options=options)


def text_file(folder: Path, projection: bool = True, seed: int = 1) -> Path:
    import comfy.ops
    from comfy.clip_model import CLIPTextModel

    sizes = {"hidden_act": "quick_gelu", "max_position_embeddings": 77, "eos_token_id": 49407}
    model = CLIPTextModel({**TEXT, **sizes}, torch.float32, "cpu", comfy.ops.manual_cast)
    randomize(model, seed, {"embedding": 8.0})
    tensors = dict(model.state_dict())
    if not projection:
        del tensors["text_projection.weight"]
    path = folder / f"clip_l_{projection}_{seed}.safetensors"
    save_file(tensors, path)
    return path


def image_encoder(folder: Path, seed: int = 2, **changes: Any) -> ClipVisionModel:
    """A CLIP Vision, or with other settings another encoder, by the host's loader."""
    config = {**VISION, **changes}
    sizes = folder / f"{config['model_type']}.json"  # older hosts read no dictionary
    sizes.write_text(json.dumps(config), encoding="utf-8")
    model = ClipVisionModel(str(sizes))
    randomize(model.model, seed, {"patch_embedding": 4.0})
    path = folder / f"{config['model_type']}_{seed}.safetensors"
    save_file({key: value.contiguous() for key, value in model.get_sd().items()}, path)
    with patch.object(comfy.clip_vision, "ClipVisionModel", lambda _: ClipVisionModel(str(sizes))):
        loaded = comfy.clip_vision.load(str(path))
    assert loaded is not None
    return loaded
