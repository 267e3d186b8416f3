"""A Stable Diffusion 1 in miniature: the host's own classes, few channels, random weights.

The four levels, the transformer blocks and the tokenizer are those of SD1.5; a sampling step
takes milliseconds. Queries and keys get large weights, so that the attention maps are far from
uniform and an edit shows in the picture.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy.supported_models_base import ClipTarget

WIDTH = 64  # of the text embeddings
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1, 1, 1],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": WIDTH,
    "num_heads": 8,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
    "dtype": torch.float32,
}
TEXT_ENCODER = {
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
}


class TinySD15(comfy.supported_models.SD15):
    """SD1.5 as the host knows it, with the sizes above and a choice of the prediction type."""

    prediction = comfy.model_base.ModelType.EPS

    def model_type(self, state_dict: dict, prefix: str = "") -> comfy.model_base.ModelType:
        return self.prediction


class TinySD15V(TinySD15):
    prediction = comfy.model_base.ModelType.V_PREDICTION


def randomize(module: torch.nn.Module, seed: int, gains: dict[str, float]) -> None:
    """Fill every parameter; a gain multiplies the weights whose name contains its key."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                gain = math.prod(value for key, value in gains.items() if key in name)
                parameter.copy_(noise * gain / math.sqrt(parameter[0].numel()))
            elif name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            else:
                parameter.copy_(0.1 * noise)


def tiny_unet(kind: type[TinySD15] = TinySD15, seed: int = 1, **changes: Any) -> ModelPatcher:
    """A MODEL; changes go to the UNet's sizes, e.g. context_dim."""
    config = kind({**UNET, **changes})
    config.unet_config["num_heads"] = UNET["num_heads"]
    model = config.get_model({}, device="cpu")
    gains = {
        "attn1.to_q": 1.5, "attn2.to_q": 2.0, "attn2.to_k": 1.5, "attn2.to_v": 1.5,
        "out.2": 0.7,
    }  # fmt: skip
    randomize(model.diffusion_model, seed, gains)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(model, device, torch.device("cpu"))


def tiny_clip(seed: int = 2, embeddings: str | None = None) -> CLIP:
    """A CLIP; `embeddings` is a folder of textual inversions."""
    target = ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    options = {"clip_l_model_config": TEXT_ENCODER, "dtype": torch.float32}
    clip = CLIP(target, embedding_directory=embeddings, model_options=options)
    clip.tokenizer.clip_l.embedding_size = WIDTH
    randomize(clip.cond_stage_model, seed, {"embedding": 8.0})
    return clip


@cache
def shared_unet(kind: type[TinySD15] = TinySD15) -> ModelPatcher:
    """The same model for all tests of a process: nodes clone it."""
    return tiny_unet(kind)


@cache
def shared_clip() -> CLIP:
    return tiny_clip()
