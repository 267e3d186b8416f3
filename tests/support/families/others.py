"""Families that few use, and those whose attention nobody can reach."""

from __future__ import annotations

from typing import Any

import comfy.ldm.aura.mmdit
import comfy.ldm.chroma_radiance.model
import comfy.ldm.ernie.model
import comfy.ldm.hidream_o1.model
import comfy.ldm.hydit.models
import comfy.ldm.joyimage.model
import comfy.ldm.kandinsky5.model
import comfy.ldm.pixart.pixartms
import torch

from .streams import AXES, CHROMA
from .tiny import Family, pooled

RADIANCE_SETTINGS = comfy.ldm.chroma_radiance.model.ChromaRadianceParams.__dataclass_fields__

AURA_FLOW = Family(
    "AuraFlow", "AuraFlow", comfy.ldm.aura.mmdit.MMDiT,
    {"in_channels": 4, "dim": 96, "n_layers": 3, "n_double_layers": 1, "n_heads": 4,
     "global_conddim": 96, "cond_seq_dim": 2048, "max_seq": 400},
    2048, channels=4,
)  # fmt: skip
KANDINSKY = Family(
    "Kandinsky 5", "Kandinsky5Image", comfy.ldm.kandinsky5.model.Kandinsky5,
    {"model_dim": 96, "ff_dim": 128, "time_dim": 64, "visual_embed_dim": 64, "axes_dims": AXES,
     "num_text_blocks": 2, "num_visual_blocks": 2, "rope_scale_factor": (1.0, 1.0, 1.0)},
    3584, seen={"model_dim": 2560}, extras=pooled(768), frames=True,
)  # fmt: skip
JOY_IMAGE = Family(
    "JoyImage", "JoyImage", comfy.ldm.joyimage.model.JoyImageTransformer3DModel,
    {"patch_size": [1, 2, 2], "in_channels": 16, "hidden_size": 96, "num_attention_heads": 4,
     "text_dim": 4096, "num_layers": 3, "rope_dim_list": AXES, "theta": 10000},
    4096, frames=True,
)  # fmt: skip
RADIANCE = Family(
    "Chroma Radiance", "ChromaRadiance", comfy.ldm.chroma_radiance.model.ChromaRadiance,
    {**CHROMA.sizes, "in_channels": 3, "out_channels": 3, "patch_size": 16, "nerf_hidden_size": 8,
     "nerf_mlp_ratio": 2, "nerf_depth": 1, "nerf_max_freqs": 2, "nerf_tile_size": 0,
     "nerf_final_head_type": "conv", "nerf_embedder_dtype": torch.float32, "use_x0": False,
     **{name: False for name in RADIANCE_SETTINGS if name == "use_sequential_txt_ids"}},
    4096, channels=3,
)  # fmt: skip

FAMILIES = [value for value in list(globals().values()) if isinstance(value, Family)]
FAMILIES.remove(CHROMA)

ERNIE = Family(
    "ERNIE", "ErnieImage", comfy.ldm.ernie.model.ErnieImageModel,
    {"hidden_size": 96, "num_attention_heads": 4, "num_layers": 2, "ffn_hidden_size": 128,
     "in_channels": 128, "out_channels": 128, "text_in_dim": 3072, "rope_axes_dim": (8, 8, 8)},
    3072, channels=128,
)  # fmt: skip
PIXART = Family(
    "PixArt Sigma", "PixArt", comfy.ldm.pixart.pixartms.PixArtMS,
    {"input_size": 32, "patch_size": 2, "in_channels": 4, "hidden_size": 96, "depth": 2,
     "num_heads": 4, "mlp_ratio": 2.0, "micro_condition": False, "model_max_length": 300,
     "pe_interpolation": 1},
    4096, channels=4,
)  # fmt: skip
UNREACHABLE = [ERNIE, PIXART]


def hunyuan_extras(tokens: int, generator: torch.Generator) -> dict[str, Any]:
    return {
        "attention_mask": torch.ones(1, tokens),
        "attention_mask_mt5xl": torch.ones(1, 256),
        "conditioning_mt5xl": torch.randn(1, 256, 64, generator=generator),
    }


HUNYUAN_DIT = Family(
    "HunyuanDiT", "HunyuanDiT", comfy.ldm.hydit.models.HunYuanDiT,
    {"hidden_size": 96, "depth": 4, "num_heads": 4, "mlp_ratio": 2.0, "text_states_dim": 64,
     "text_states_dim_t5": 64},
    64, channels=4, extras=hunyuan_extras, columns=77,
)  # fmt: skip
HIDREAM_O1 = Family(
    "HiDream O1", "HiDreamO1", comfy.ldm.hidream_o1.model.HiDreamO1Transformer,
    {"text_config_overrides":
         {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
          "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
          "rope_dims": [4, 2, 2]},
     "vision_config_overrides":
         {"hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "depth": 1}},
    1, channels=3,
)  # fmt: skip
