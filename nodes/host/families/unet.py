"""Stable Diffusion 1.x: a UNet whose transformer blocks attend to the prompt."""

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
        """Most image positions of a layer with self-attention injection, for a latent (h, w)."""
        return max(1024, size[0] * size[1] // 4)

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
    """The family of a model; ValueError if it is no Stable Diffusion 1.x UNet that reads text."""
    unet = model.get_model_object("diffusion_model")
    name = type(model.model).__name__
    if not isinstance(unet, UNetModel) or unet.num_classes is not None:
        raise ValueError(
            f"Prompt-to-Prompt needs a Stable Diffusion 1.x model, but this one is {name} "
            f"({type(unet).__name__}). SD2, SDXL and transformer models are not supported yet: "
            "load an SD1.x checkpoint."
        )
    layers, width = dict(_transformer_layers(unet)), text_width(model)
    if not layers or width is None:
        raise ValueError(
            f"This model ({name}) has no text cross-attention, so words cannot be edited in it. "
            "Load a text-to-image Stable Diffusion 1.x checkpoint."
        )
    return UNetFamily(layers, width)


def text_width(model: Any) -> int | None:
    """Channels of the text encoding that the model's cross-attention reads."""
    return model.model.model_config.unet_config.get("context_dim")


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
