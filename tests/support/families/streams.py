"""Families whose text and image attend to each other in one call."""

from __future__ import annotations

from typing import Any

import comfy.ldm.chroma.model
import comfy.ldm.flux.model
import comfy.ldm.hunyuan_video.model
import comfy.ldm.ideogram4.model
import comfy.ldm.krea2.model
import comfy.ldm.lens.model
import comfy.ldm.mage_flow.model
import comfy.ldm.qwen_image.model
import torch
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT

from .tiny import Family, pooled

AXES = [4, 10, 10]  # rotary channels of a head: time, height, width
FLUX = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": 4096,
    "hidden_size": 96, "mlp_ratio": 2.0, "num_heads": 4, "depth": 2, "depth_single_blocks": 2,
    "axes_dim": AXES, "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True,
    "txt_ids_dims": [],
}  # fmt: skip
FLUX2 = {
    **FLUX, "in_channels": 128, "out_channels": 128, "vec_in_dim": None, "axes_dim": [6] * 4,
    "patch_size": 1, "qkv_bias": False, "theta": 2000, "global_modulation": True,
    "mlp_silu_act": True, "ops_bias": False, "txt_ids_dims": [3], "default_ref_method": "index",
    "ref_index_scale": 10.0,
}  # fmt: skip
HUNYUAN = {
    "in_channels": 16, "out_channels": 16, "context_in_dim": 4096, "hidden_size": 96,
    "mlp_ratio": 2.0, "num_heads": 4, "depth": 2, "depth_single_blocks": 2, "theta": 256,
    "qkv_bias": True, "byt5": False, "meanflow": False, "use_cond_type_embedding": False,
    "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip


def ones_mask(tokens: int, generator: torch.Generator) -> dict[str, Any]:
    return {"attention_mask": torch.ones(1, tokens, dtype=torch.long)}


def pooled_guidance(tokens: int, generator: torch.Generator) -> dict[str, Any]:
    return {**pooled(768)(tokens, generator), "guidance": 3.5}


FLUX_DEV = Family(
    "Flux.1 dev", "Flux", comfy.ldm.flux.model.Flux, FLUX, 4096, extras=pooled_guidance
)
FLUX_SCHNELL = Family(
    "Flux.1 schnell", "Flux", comfy.ldm.flux.model.Flux, {**FLUX, "guidance_embed": False}, 4096,
    extras=pooled(768),
)  # fmt: skip
FLUX_FILL = Family(
    "Flux.1 Fill", "Flux", comfy.ldm.flux.model.Flux, {**FLUX, "in_channels": 96}, 4096,
    extras=pooled_guidance,
)  # fmt: skip
FLUX2_DEV = Family(
    "Flux.2 dev", "Flux2", comfy.ldm.flux.model.Flux, {**FLUX2, "context_in_dim": 15360}, 15360,
    channels=128,
)  # fmt: skip
KLEIN = Family(
    "Flux.2 Klein", "Flux2", comfy.ldm.flux.model.Flux,
    {**FLUX2, "context_in_dim": 7680, "guidance_embed": False}, 7680, channels=128,
)  # fmt: skip
LONGCAT = Family(
    "LongCat", "LongCatImage", comfy.ldm.flux.model.Flux,
    {**FLUX, "vec_in_dim": None, "context_in_dim": 3584, "guidance_embed": False,
     "txt_ids_dims": [1, 2]},
    3584,
)  # fmt: skip
CHROMA = Family(
    "Chroma", "Chroma", comfy.ldm.chroma.model.Chroma,
    {"in_channels": 64, "out_channels": 64, "context_in_dim": 4096, "hidden_size": 96,
     "mlp_ratio": 2.0, "num_heads": 4, "depth": 2, "depth_single_blocks": 2, "axes_dim": AXES,
     "theta": 10000, "patch_size": 2, "qkv_bias": True, "in_dim": 64, "out_dim": 96,
     "hidden_dim": 64, "n_layers": 2, "txt_ids_dims": [], "vec_in_dim": None},
    4096,
)  # fmt: skip
QWEN_IMAGE = Family(
    "Qwen-Image", "QwenImage", comfy.ldm.qwen_image.model.QwenImageTransformer2DModel,
    {"in_channels": 64, "num_layers": 3, "attention_head_dim": 24, "num_attention_heads": 4,
     "joint_attention_dim": 3584, "axes_dims_rope": AXES},
    3584, frames=True,
)  # fmt: skip
KREA2 = Family(
    "Krea 2", "Krea2", comfy.ldm.krea2.model.SingleStreamDiT,
    {"features": 96, "tdim": 64, "txtdim": 80, "heads": 4, "kvheads": 2, "multiplier": 2,
     "layers": 3, "channels": 16, "txtlayers": 12},
    12 * 80, frames=True,
)  # fmt: skip
MAGE_FLOW = Family(
    "Mage-Flow", "MageFlow", comfy.ldm.mage_flow.model.MageFlowTransformer2DModel,
    {"in_channels": 128, "num_layers": 3, "attention_head_dim": 24, "num_attention_heads": 4,
     "axes_dims_rope": AXES},
    2560, channels=128,
)  # fmt: skip
LENS = Family(
    "Lens", "Lens", comfy.ldm.lens.model.LensTransformer2DModel,
    {"num_layers": 3, "attention_head_dim": 24, "num_attention_heads": 4, "enc_hidden_dim": 2880,
     "axes_dims_rope": AXES},
    4 * 2880, extras=ones_mask, channels=128,
)  # fmt: skip
IDEOGRAM = Family(
    "Ideogram 4", "Ideogram4", comfy.ldm.ideogram4.model.Ideogram4Transformer2DModel,
    {"in_channels": 128, "num_layers": 3, "num_attention_heads": 4, "attention_head_dim": 24,
     "intermediate_size": 128, "adaln_dim": 32, "llm_features_dim": 4096,
     "mrope_section": [4, 4, 4]},
    4096, extras=ones_mask, channels=128,
)  # fmt: skip
SD3 = Family(
    "SD3", "SD3", MMDiT,
    {"input_size": None, "in_channels": 16, "out_channels": 16, "depth": 2, "patch_size": 2,
     "adm_in_channels": 2048, "num_patches": 1024, "pos_embed_max_size": 32,
     "context_embedder_config":
         {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}}},
    4096, extras=pooled(2048),
)  # fmt: skip
SD35 = Family(
    "SD3.5 medium", "SD3", MMDiT,
    {**SD3.sizes, "depth": 3, "qk_norm": "rms", "x_block_self_attn_layers": [0, 1],
     "context_embedder_config":
         {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 192}}},
    4096, extras=pooled(2048),
)  # fmt: skip
HUNYUAN_IMAGE = Family(
    "HunyuanImage 2.1", "HunyuanImage21", comfy.ldm.hunyuan_video.model.HunyuanVideo,
    {**HUNYUAN, "in_channels": 64, "out_channels": 64, "vec_in_dim": None, "patch_size": [1, 1],
     "axes_dim": [12, 12], "context_in_dim": 3584, "guidance_embed": False},
    3584, channels=64,
)  # fmt: skip
HUNYUAN_VIDEO = Family(
    "HunyuanVideo", "HunyuanVideo", comfy.ldm.hunyuan_video.model.HunyuanVideo,
    {**HUNYUAN, "vec_in_dim": 768, "patch_size": [1, 2, 2], "axes_dim": AXES,
     "guidance_embed": True},
    4096, extras=pooled(768), frames=True,
)  # fmt: skip

FAMILIES = [value for value in list(globals().values()) if isinstance(value, Family)]
