"""Transformers of true block widths with random weights, few blocks deep, and a text for them.

Costs do not depend on the weights; depth multiplies what a block costs.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import torch
from torch import Tensor

from headless import REPOSITORY

FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 768,
    "context_in_dim": 4096, "hidden_size": 3072, "mlp_ratio": 4.0, "num_heads": 24,
    "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2, "qkv_bias": True,
    "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
QWEN = {
    "image_model": "qwen_image", "in_channels": 64, "attention_head_dim": 128,
    "num_attention_heads": 24, "joint_attention_dim": 3584, "axes_dims_rope": [16, 56, 56],
}  # fmt: skip
Z_IMAGE = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 3840, "cap_feat_dim": 2560,
    "n_refiner_layers": 1, "n_heads": 30, "n_kv_heads": 30, "multiple_of": 256, "qk_norm": True,
    "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512], "rope_theta": 256.0,
    "ffn_dim_multiplier": 8 / 3, "z_image_modulation": True, "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A family's sizes. text: its conditioning's columns and width; frames: of the latent.

    true_blocks: how deep the real model is. blocks: how the sizes name ``count`` blocks.
    """

    config: str
    sizes: dict[str, Any]
    text: tuple[int, int]
    true_blocks: int
    frames: bool = False

    def blocks(self, count: int) -> dict[str, int]:
        if self.config == "Flux":  # 19 of two streams, 38 of one
            double = max(round(count / 3), 1)
            return {"depth": double, "depth_single_blocks": count - double}
        return {"n_layers" if self.config == "ZImage" else "num_layers": count}

    def latent(self, pixels: int, rows: int, seed: int = 1) -> dict[str, Tensor]:
        frames = (1,) if self.frames else ()
        return {"samples": torch.zeros(rows, 16, *frames, pixels // 8, pixels // 8)}


SHAPES = {
    # A quarter of Flux: at 512 px its attention has the share of a block that Flux has at 1024 px.
    "small": Shape(
        "Flux", {**FLUX, "hidden_size": 768, "num_heads": 6}, (256, 4096), true_blocks=57
    ),
    "flux": Shape("Flux", FLUX, (512, 4096), true_blocks=57),
    "qwen": Shape("QwenImage", QWEN, (256, 3584), true_blocks=60, frames=True),
    "zimage": Shape("ZImage", Z_IMAGE, (250, 2560), true_blocks=30),
}


def load(shape: Shape, blocks: int, dtype: torch.dtype) -> Any:
    """A MODEL of the shape on the host's device, its weights random."""
    sizes = {**shape.sizes, **shape.blocks(blocks)}
    config = getattr(comfy.supported_models, shape.config)(sizes)
    config.unet_config["dtype"] = dtype
    config.custom_operations = comfy.ops.disable_weight_init
    device = comfy.model_management.get_torch_device()
    model = config.get_model({}, device=device)
    model.diffusion_model.to(device)
    generator = torch.Generator(device).manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.diffusion_model.named_parameters():
            if parameter.ndim >= 2:
                scale = math.sqrt(parameter[0].numel())
                parameter.normal_(generator=generator).div_(scale)
            else:
                parameter.fill_(float(name.endswith(("weight", "scale"))))
    return comfy.model_patcher.CoreModelPatcher(model, device, device)


class Words:
    """A text encoder's stand-in: one random vector for every word, filled up to a length."""

    def __init__(self, shape: Shape, length: int | None = None) -> None:
        columns, self.width = shape.text
        self.length = length or columns

    def tokenize(self, text: str, **_: Any) -> list[str]:
        return text.split()

    def encode_from_tokens_scheduled(self, words: list[str]) -> list[list[Any]]:
        rows = [*words, *["<pad>"] * (self.length - len(words))]
        text = torch.cat([self._vector(word) for word in rows])[None]
        mask = torch.ones(1, self.length, dtype=torch.long)
        pooled = {"pooled_output": text[:, 0, :768]}
        return [[text, {**pooled, "guidance": 3.5, "attention_mask": mask}]]

    def _vector(self, word: str) -> Tensor:
        seed = int.from_bytes(word.encode()[:7], "little")
        return torch.randn(1, self.width, generator=torch.Generator().manual_seed(seed))

    def prompt(self, text: str) -> Any:
        """The text as the pack's Prompt."""
        module = pack("p2p_core.prompt")
        words = [module.Word(word, (word,), (i,)) for i, word in enumerate(text.split())]
        padding = tuple(range(len(words), self.length))
        return module.Prompt(text, tuple(words), (), (), padding, self.length, columns=self.length)


def pack(name: str) -> ModuleType:
    """A module of the pack as the host has loaded it."""
    root = next(
        key for key, module in list(sys.modules.items())
        if getattr(module, "__file__", None) == str(REPOSITORY / "__init__.py")
    )  # fmt: skip
    return sys.modules[f"{root}.{name}"]
