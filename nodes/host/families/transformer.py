"""Transformers, whose attention is found out in the run; and which family a model belongs to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from .unet import Layer, UNetFamily, unet_family

MAP_POSITIONS = 1024  # of a transformer's maps, at most


@dataclass(frozen=True)
class TransformerFamily:
    """A transformer: text and image in one sequence, or cross-attention of a single resolution.

    name: for messages. What a UNet's family knows of layers, a probe finds out in the run.
    """

    name: str

    @property
    def layers(self) -> Mapping[Layer, int]:
        return {}

    def self_attention_limit(self, size: tuple[int, int]) -> int:
        """Every layer may take the source's self-attention."""
        return 1 << 30

    def map_layers(self, size: tuple[int, int]) -> set[Layer]:
        return set()

    def map_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the attention maps: every second latent row, every fourth and so on."""
        stride = 2
        while math.prod(self._grid(size, stride)) > MAP_POSITIONS:
            stride *= 2
        return self._grid(size, stride)

    @staticmethod
    def _grid(size: tuple[int, int], stride: int) -> tuple[int, int]:
        return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


def model_family(model: Any) -> UNetFamily | TransformerFamily:
    """The family of a model; ValueError for a UNet that cannot be edited."""
    network = model.get_model_object("diffusion_model")
    if isinstance(network, UNetModel):
        return unet_family(model)
    return TransformerFamily(f"{type(model.model).__name__}, {type(network).__name__}")
