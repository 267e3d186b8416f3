"""Which models the pack edits, where their attention layers are, and what others patched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, UNetModel, Upsample
from comfy.model_patcher import create_model_options_clone

GUIDANCE = ("sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function")


class Layer(NamedTuple):
    """A transformer block as the host names it in a run: ("input", 4, 0)."""

    name: str
    number: int
    index: int


def text_attention_layers(model: Any) -> dict[Layer, int]:
    """Every transformer block of the model's UNet that attends to the prompt, with its level.

    The level says how often the latent is halved there. Raises ValueError for a model that is not
    a Stable Diffusion 1.x UNet with text attention.
    """
    unet = model.get_model_object("diffusion_model")
    family = type(model.model).__name__
    if not isinstance(unet, UNetModel) or unet.num_classes is not None:
        raise ValueError(
            f"Prompt-to-Prompt needs a Stable Diffusion 1.x model, but this one is {family} "
            f"({type(unet).__name__}). SD2, SDXL and transformer models are not supported yet: "
            "load an SD1.x checkpoint."
        )
    layers = dict(_transformer_layers(unet))
    if not layers or text_width(model) is None:
        raise ValueError(
            f"This model ({family}) has no text cross-attention, so words cannot be edited in it. "
            "Load a text-to-image Stable Diffusion 1.x checkpoint."
        )
    return layers


def _transformer_layers(unet: Any) -> Iterator[tuple[Layer, int]]:
    middle = [] if unet.middle_block is None else [unet.middle_block]
    stages = (("input", unet.input_blocks), ("middle", middle), ("output", unet.output_blocks))
    level = 0
    for name, blocks in stages:
        for number, block in enumerate(blocks):
            for part in block:
                level += isinstance(part, Downsample) - isinstance(part, Upsample)
                if isinstance(part, SpatialTransformer):
                    for index in range(len(part.transformer_blocks)):
                        yield Layer(name, number, index), level


def text_width(model: Any) -> int | None:
    """Channels of the text encoding that the model's cross-attention reads."""
    return model.model.model_config.unet_config.get("context_dim")


def guidance_patches(model: Any) -> list[str]:
    """How other nodes change the way the model's guidance is computed, by the host's names."""
    return [name for name in GUIDANCE if model.model_options.get(name)]


def network_patches(model: Any) -> dict[str, dict]:
    """What other nodes put into the network (FreeU, IPAdapter and the like), by kind and place."""
    options = create_model_options_clone(model.model_options).get("transformer_options", {})
    return {kind: options[kind] for kind in ("patches", "patches_replace") if options.get(kind)}
