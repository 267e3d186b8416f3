"""Checkpoints of SD1, SD2 and SDXL in miniature, with the real ones' keys, for the host's loader.

Blocks, depths and layers' kinds are the real models', only the widths are small, so each is told
to the host as one more supported model while it is loaded. Weights are random. Residual branches
of SDXL are calmed, because ten random transformer blocks in a row amplify rounding a thousandfold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import comfy.model_base
import comfy.sd
import comfy.supported_models
import comfy.supported_models_base
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from tiny_model import randomize
from torch import Tensor

UNET_PREFIX = "model.diffusion_model."
# The host takes an SD2 for one of v-prediction when these numbers spread far enough.
PREDICTION = f"{UNET_PREFIX}output_blocks.11.1.transformer_blocks.0.norm1.bias"
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "legacy": False,
    "dtype": torch.float32,
}
FOUR_LEVELS = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
}
THREE_LEVELS = {"num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4]}
HEADS = {"num_heads": -1, "num_head_channels": 16}
ENCODERS = {
    "clip_l": {"hidden_size": 64, "num_attention_heads": 4},
    "clip_h": {"hidden_size": 64, "num_attention_heads": 4},
    "clip_g": {"hidden_size": 96, "num_attention_heads": 4},
}
LAYERS = {"intermediate_size": 64, "num_hidden_layers": 3}
GAINS = {"attn1.to_q": 1.5, "attn2.to_q": 2.0, "attn2.to_k": 1.5, "attn2.to_v": 1.5, "out.2": 0.7}
CALM = {"to_out": 0.3, "ff.net.2": 0.3}
TIME_SIZES = 6 * 256  # the six numbers that SDXL is told about a picture's size


@dataclass(frozen=True)
class Family:
    """A family's place among the host's classes, its UNet's shape and its text encoders."""

    kind: type[comfy.supported_models_base.BASE]
    unet: dict[str, Any]
    encoders: tuple[str, ...]
    gains: dict[str, float]


def _sdxl(kind: type, depth: list[int], output: list[int], middle: int, **changes: Any) -> Family:
    shape = {
        "num_classes": "sequential",
        "adm_in_channels": 96 + TIME_SIZES,
        "context_dim": 64 + 96,
        "transformer_depth": depth,
        "transformer_depth_output": output,
        "transformer_depth_middle": middle,
    }
    unet = {**THREE_LEVELS, **shape, **changes}
    return Family(kind, unet, ("clip_l", "clip_g"), {**GAINS, **CALM})


BASE_DEPTH = ([0, 0, 2, 2, 10, 10], [0, 0, 0, 2, 2, 2, 10, 10, 10], 10)
SD2 = {"adm_in_channels": None, "context_dim": 64, **FOUR_LEVELS}
SD1 = {**SD2, "use_linear_in_transformer": False}
FAMILIES = {
    "sd1": Family(comfy.supported_models.SD15, SD1, ("clip_l",), GAINS),
    "sd1 inpainting": Family(
        comfy.supported_models.SD15, {**SD1, "in_channels": 9}, ("clip_l",), GAINS
    ),
    "sd2": Family(comfy.supported_models.SD20, SD2, ("clip_h",), GAINS),
    "sd2, v": Family(comfy.supported_models.SD20, SD2, ("clip_h",), GAINS),
    "sd2 inpainting": Family(
        comfy.supported_models.SD20, {**SD2, "in_channels": 9}, ("clip_h",), GAINS
    ),
    "sdxl": _sdxl(comfy.supported_models.SDXL, *BASE_DEPTH),
    "sdxl inpainting": _sdxl(comfy.supported_models.SDXL, *BASE_DEPTH, in_channels=9),
    "sdxl instruct": _sdxl(comfy.supported_models.SDXL_instructpix2pix, *BASE_DEPTH, in_channels=8),
    "ssd": _sdxl(
        comfy.supported_models.SSD1B, [0, 0, 2, 2, 4, 4], [0, 0, 0, 1, 1, 2, 10, 4, 4], -1
    ),
    "refiner": Family(
        comfy.supported_models.SDXLRefiner,
        {
            **FOUR_LEVELS,
            "num_classes": "sequential",
            "adm_in_channels": 96 + 5 * 256,
            "context_dim": 96,
            "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
            "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
            "transformer_depth_middle": 4,
        },
        ("clip_g",),
        {**GAINS, **CALM},
    ),
}


def small(family: Family) -> type[comfy.supported_models_base.BASE]:
    """The host's description of the family, recognised by the small sizes."""
    recognised = {key: family.unet.get(key, UNET.get(key)) for key in family.kind.unet_config}
    body = {
        "unet_config": recognised,
        "unet_extra_config": {**family.kind.unet_extra_config, **HEADS},
        "supported_inference_dtypes": [torch.float32],
    }
    return type(f"Small{family.kind.__name__}", (family.kind,), body)


@contextmanager
def known_to_the_host(kind: type[comfy.supported_models_base.BASE]) -> Iterator[None]:
    comfy.supported_models.models.insert(0, kind)
    try:
        yield
    finally:
        comfy.supported_models.models.remove(kind)


def encoder_options(family: Family) -> dict[str, Any]:
    sizes = {f"{name}_model_config": {**LAYERS, **ENCODERS[name]} for name in family.encoders}
    return {"dtype": torch.float32, **sizes}


def checkpoint(name: str, seed: int = 1) -> dict[str, Tensor]:
    """A checkpoint's tensors under the real keys."""
    family = FAMILIES[name]
    config = small(family)({**UNET, **family.unet})
    unet = config.get_model({}, device="cpu").diffusion_model
    randomize(unet, seed, family.gains)
    tensors = {f"{UNET_PREFIX}{key}": value for key, value in unet.state_dict().items()}
    if PREDICTION in tensors:
        tensors[PREDICTION] = tensors[PREDICTION] * (3.0 if name.endswith(", v") else 0.3)
    text = CLIP(config.clip_target({}), model_options=encoder_options(family)).cond_stage_model
    randomize(text, seed + 1, {"embedding": 8.0})
    tensors.update(config.process_clip_state_dict_for_saving(dict(text.state_dict())))
    return tensors


def load(
    name: str, tensors: dict[str, Tensor], embeddings: str | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[ModelPatcher, CLIP]:  # fmt: skip
    """MODEL and CLIP, by the host's checkpoint loader. dtype: of the UNet's weights."""
    family = FAMILIES[name]
    with known_to_the_host(small(family)):
        model, clip, _, _ = comfy.sd.load_state_dict_guess_config(
            dict(tensors),
            output_vae=False,
            embedding_directory=embeddings,
            te_model_options=encoder_options(family),
            model_options={} if dtype is None else {"dtype": dtype},
        )
    for encoder in family.encoders:
        tokenizer = getattr(clip.tokenizer, encoder)
        tokenizer.embedding_size = ENCODERS[encoder]["hidden_size"]
    return model, clip


@cache
def shared(name: str) -> tuple[ModelPatcher, CLIP]:
    """The same model for all tests of a process: nodes clone it."""
    return load(name, checkpoint(name))
