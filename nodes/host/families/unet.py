"""Stable Diffusion's UNets, whose transformer blocks attend to the prompt: SD1, SD2 and SDXL.

They are told by their structure, so pruned, merged and fine-tuned ones are among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, UNetModel, Upsample

from ....p2p_core.maps import coarse_level, size_at


class Layer(NamedTuple):
    """A transformer block as the host names it in a run: ("input", 4, 0)."""

    name: str
    number: int
    index: int


@dataclass(frozen=True)
class UNetFamily:
    """What an edit must know of a UNet.

    layers: its transformer blocks, and how often the latent is halved at each. text_width: channels
    of the text that they read.
    """

    layers: Mapping[Layer, int]
    text_width: int

    def self_attention_limit(self, size: tuple[int, int]) -> int:
        """Most image positions of a layer with self-attention injection, for a latent (h, w).

        A quarter of the finest layer's: of the latent's in SD1 and SD2, of a quarter in SDXL.
        """
        return max(1024, size[0] * size[1] // 4 ** (1 + min(self.layers.values())))

    def map_layers(self, size: tuple[int, int]) -> set[Layer]:
        """The layers of the one coarse resolution whose maps are collected."""
        level = self._map_level(size)
        return {layer for layer, own in self.layers.items() if own == level}

    def map_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of that resolution."""
        return size_at(size, self._map_level(size))

    def _map_level(self, size: tuple[int, int]) -> int:
        return coarse_level(size, tuple(self.layers.values()))


def unet_family(model: Any) -> UNetFamily:
    """The family of a model; ValueError if it is no UNet of SD1, SD2 or SDXL that reads text."""
    unet = model.get_model_object("diffusion_model")
    if why := _strangeness(model, unet):
        raise ValueError(
            f"Prompt-to-Prompt edits SD1, SD2 and SDXL models, but this one is "
            f"{type(model.model).__name__} ({type(unet).__name__}): {why}. Load a text-to-image "
            "Stable Diffusion checkpoint."
        )
    width = text_width(model)
    assert width is not None  # its layers would have nothing to read
    return UNetFamily(dict(_transformer_layers(unet)), width)


def _strangeness(model: Any, unet: Any) -> str | None:
    """What keeps a model from being one of ours; None for nothing."""
    if not isinstance(unet, UNetModel):
        return "it is no Stable Diffusion UNet"
    if model.model.model_config.unet_config.get("use_temporal_attention"):
        return "it makes the frames of a video"
    if unet.num_classes not in (None, "sequential"):
        return "it is told class labels, as upscalers are"
    if text_width(model) is None or not any(True for _ in _transformer_layers(unet)):
        return "it has no text cross-attention, so it has no words"
    if any(getattr(part, "disable_self_attn", False) for part in unet.modules()):
        return "some of its layers read the text twice, without self-attention"
    return None


def text_width(model: Any) -> int | None:
    """Channels of the text encoding that the model's cross-attention reads."""
    return model.model.model_config.unet_config.get("context_dim")


def layer_widths(model: Any) -> dict[Layer, int]:
    """Channels of the queries in every transformer block of a model."""
    unet = model.get_model_object("diffusion_model")
    stages = {
        "input": unet.input_blocks,
        "middle": [unet.middle_block],
        "output": unet.output_blocks,
    }
    widths = {}
    for layer, _ in _transformer_layers(unet):
        [part] = [p for p in stages[layer.name][layer.number] if isinstance(p, SpatialTransformer)]
        attention: Any = part.transformer_blocks[layer.index].attn2
        widths[layer] = attention.heads * attention.dim_head
    return widths


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
