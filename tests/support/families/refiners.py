"""Families with refiners before the joint attention, and families with cross-attention."""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.ldm.anima.model
import comfy.ldm.boogu.model
import comfy.ldm.cosmos.predict2
import comfy.ldm.hidream.model
import comfy.ldm.lumina.model
import comfy.ldm.omnigen.omnigen2
import comfy.ldm.wan.model
import torch

from .streams import ones_mask
from .tiny import Family, pooled

NEXT_DIT = {
    "patch_size": 2, "in_channels": 16, "dim": 256, "n_layers": 3, "n_refiner_layers": 2,
    "n_heads": 4, "multiple_of": 32, "qk_norm": True, "axes_dims": [16, 24, 24],
    "axes_lens": [300, 512, 512],
}  # fmt: skip
OMNIGEN = {
    "in_channels": 16, "hidden_size": 96, "num_layers": 2, "num_refiner_layers": 2,
    "num_attention_heads": 4, "num_kv_heads": 2, "multiple_of": 32, "axes_dim_rope": [8, 8, 8],
}  # fmt: skip
ANIMA_WIDTH = 64


def anima_extras(tokens: int, generator: torch.Generator) -> dict[str, Any]:
    ids = torch.randint(3, 32000, (tokens + 2,), generator=generator)
    return {"t5xxl_ids": ids, "t5xxl_weights": torch.ones(tokens + 2)}


def llama_extras(tokens: int, generator: torch.Generator) -> dict[str, Any]:
    states = torch.randn(1, 32, tokens + 3, 64, generator=generator)
    return {**pooled(2048)(tokens, generator), "conditioning_llama3": states}


Z_IMAGE = Family(
    "Z-Image", "Lumina2", comfy.ldm.lumina.model.NextDiT,
    {**NEXT_DIT, "n_kv_heads": 4, "cap_feat_dim": 2560, "ffn_dim_multiplier": 2.0,
     "rope_theta": 256.0, "z_image_modulation": True, "time_scale": 1000.0,
     "pad_tokens_multiple": 32},
    2560, seen={"dim": 3840}, extras=ones_mask,
)  # fmt: skip
LUMINA2 = Family(
    "Lumina 2", "Lumina2", comfy.ldm.lumina.model.NextDiT,
    {**NEXT_DIT, "n_kv_heads": 2, "cap_feat_dim": 2304, "ffn_dim_multiplier": 2.0},
    2304, seen={"dim": 2304}, extras=ones_mask,
)  # fmt: skip
OMNIGEN2 = Family(
    "OmniGen 2", "Omnigen2", comfy.ldm.omnigen.omnigen2.OmniGen2Transformer2DModel,
    {**OMNIGEN, "text_feat_dim": 2048, "timestep_scale": 1000.0}, 2048, extras=ones_mask,
)  # fmt: skip
BOOGU = Family(
    "Boogu", "Boogu", comfy.ldm.boogu.model.BooguTransformer2DModel,
    {**OMNIGEN, "num_double_stream_layers": 2, "instruction_feat_dim": 4096}, 4096,
    extras=ones_mask,
)  # fmt: skip
HIDREAM = Family(
    "HiDream", "HiDream", comfy.ldm.hidream.model.HiDreamImageTransformer2DModel,
    {"patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 2,
     "num_single_layers": 2, "attention_head_dim": 24, "num_attention_heads": 4,
     "caption_channels": [64, 64], "text_emb_dim": 2048, "num_routed_experts": 2,
     "num_activated_experts": 1, "axes_dims_rope": [8, 8, 8], "max_resolution": [128, 128],
     "llama_layers": [0, 1, 2, 31]},
    64, extras=llama_extras,
)  # fmt: skip
ANIMA = Family(
    "Anima", "Anima", comfy.ldm.anima.model.Anima,
    {"max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16, "out_channels": 16,
     "patch_spatial": 2, "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 96,
     "num_blocks": 2, "num_heads": 4, "mlp_ratio": 2.0, "crossattn_emb_channels": ANIMA_WIDTH,
     "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "use_adaln_lora": True,
     "adaln_lora_dim": 32, "rope_h_extrapolation_ratio": 4.0, "rope_w_extrapolation_ratio": 4.0,
     "extra_per_block_abs_pos_emb": False, "rope_enable_fps_modulation": False},
    ANIMA_WIDTH, extras=anima_extras, frames=True,
    patches=(
        ("comfy.ldm.anima.model.LLMAdapter",
         partial(comfy.ldm.anima.model.LLMAdapter, source_dim=ANIMA_WIDTH, target_dim=ANIMA_WIDTH,
                 model_dim=ANIMA_WIDTH, num_layers=1, num_heads=4)),
    ),
)  # fmt: skip
COSMOS = Family(
    "Cosmos-Predict2", "CosmosPredict2", comfy.ldm.cosmos.predict2.MiniTrainDIT,
    {**ANIMA.sizes, "crossattn_emb_channels": 1024}, 1024, frames=True,
)  # fmt: skip
WAN = Family(
    "Wan 2.1", "WAN21", comfy.ldm.wan.model.WanModel,
    {"model_type": "t2v", "in_dim": 16, "dim": 96, "ffn_dim": 128, "text_dim": 4096,
     "out_dim": 16, "num_heads": 4, "num_layers": 2},
    4096, frames=True,
)  # fmt: skip

FAMILIES = [value for value in list(globals().values()) if isinstance(value, Family)]
