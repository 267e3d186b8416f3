"""Models of true size for measurements of cost: random weights, since cost does not depend on them.

Weights are made on the device. Queries and keys are large enough for attention to look somewhere,
and what a block adds is small, so that fp16 holds it.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from typing import Any

import torch

FOUR_LEVELS = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "use_linear_in_transformer": False,
    "context_dim": 768,
    "num_heads": 8,
    "adm_in_channels": None,
}
THREE_LEVELS = {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "use_linear_in_transformer": True,
    "context_dim": 2048,
    "num_head_channels": 64,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
}
SHARED = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320,
    "use_spatial_transformer": True, "use_temporal_attention": False, "legacy": False,
    "use_checkpoint": False,
}  # fmt: skip
# What the same networks are in diffusers; sd15 is its default.
DIFFUSERS: dict[str, dict[str, Any]] = {
    "sd15": {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64},
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
PIXELS = {"sd15": 512, "sdxl": 1024, "demo": 128}
GAINS = {"attn2.to_q": 2.0, "attn2.to_k": 1.5, "to_out": 0.3, "ff.net.2": 0.3, "out.2": 0.7}


@dataclass(frozen=True)
class Subject:
    """What is measured. shape: the UNet's sizes as the host reads them, None for the demo model."""

    name: str
    model: Any
    clip: Any
    shape: dict[str, Any] | None


def use_host(device: str) -> None:
    """Make ComfyUI importable (COMFYUI_PATH names its folder) and choose where it computes."""
    path = os.environ.get("COMFYUI_PATH")
    if path and path not in sys.path:
        sys.path.insert(0, path)
    import comfy.cli_args

    comfy.cli_args.args.cpu = device == "cpu"
    comfy.cli_args.args.use_pytorch_cross_attention = True


def subject(name: str, pack: Any, dtype: torch.dtype) -> Subject:
    """A model of this name: sd15, sdxl, or the pack's own demo model (always in float32)."""
    if name == "demo":
        model, clip, _ = pack.demo_model()
        return Subject(name, model, clip, None)
    import comfy.supported_models

    kinds = {"sd15": comfy.supported_models.SD15, "sdxl": comfy.supported_models.SDXL}
    levels = {"sd15": FOUR_LEVELS, "sdxl": THREE_LEVELS}
    shape = {**SHARED, **levels[name], "dtype": dtype}
    return Subject(name, _unet(kinds[name], shape), _clip(name), shape)


def _unet(kind: type, shape: dict[str, Any]) -> Any:
    import comfy.model_management
    import comfy.model_patcher

    device = comfy.model_management.get_torch_device()
    config = kind(dict(shape))
    config.set_inference_dtype(shape["dtype"], None)
    model = config.get_model({}, device=device)
    _randomize(model.diffusion_model, device)
    return comfy.model_patcher.CoreModelPatcher(model, device, torch.device("cpu"))


def _clip(name: str) -> Any:
    """Text encoders of the right widths, but of few layers: they run once."""
    import comfy.sd
    import comfy.sd1_clip
    import comfy.sdxl_clip
    from comfy.supported_models_base import ClipTarget

    targets = {
        "sd15": (comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel),
        "sdxl": (comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel),
    }
    sizes = {"clip_l": (768, 12), "clip_g": (1280, 20)}
    layers = {
        f"{part}_model_config": {
            "hidden_size": width, "intermediate_size": width, "num_attention_heads": heads,
            "num_hidden_layers": 3,  # SDXL reads the last but one
        }
        for part, (width, heads) in sizes.items()
    }  # fmt: skip
    options = {"dtype": torch.float32, **layers}
    clip = comfy.sd.CLIP(ClipTarget(*targets[name]), model_options=options)
    _randomize(clip.cond_stage_model, torch.device("cpu"))
    return clip


def _randomize(module: torch.nn.Module, device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(1)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.ndim < 2:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
                continue
            gain = math.prod(value for key, value in GAINS.items() if key in name)
            spread = 1.0 if "embedding" in name else gain / math.sqrt(weight[0].numel())
            weight.normal_(0.0, spread, generator=generator)
