"""Transformers with their text encoders, and what is wired beside an edit of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from companions import COMPANIONS
from companions.companion import Companion
from companions.guidance import CACHE, NODES, node
from families import others, refiners, streams
from families.tiny import Family
from host_run import Link
from scenes import Scene
from text_encoders import make_encoder
from torch import Tensor


@dataclass(frozen=True)
class Kind:
    """A family and its text encoder, or one of its shape. unit: pixels of the latent a patch."""

    family: Family
    encoder: str
    widths: Mapping[str, int]
    unit: int = 2
    references: bool = False


T5 = {"t5xxl": 4096}
FLUX = T5 | {"clip_l": 768}
SD3 = {"clip_l": 768, "clip_g": 1280}
QWEN = {"qwen25_7b": 3584}
IDEOGRAM = 64  # of the text encoder, of which the model reads 13 layers
KINDS = {
    kind.family.name: kind
    for kind in (
        Kind(streams.QWEN_IMAGE, "Qwen-Image", QWEN, references=True),
        Kind(refiners.Z_IMAGE, "Z-Image", {"qwen3_4b": 2560}),
        Kind(streams.KREA2, "Krea 2", {"qwen3vl_4b": 80}),
        Kind(streams.FLUX_DEV, "Flux.1", FLUX, references=True),
        Kind(streams.FLUX_SCHNELL, "Flux.1", FLUX),
        Kind(streams.KLEIN, "Klein", {"qwen3_4b": 2560}, unit=1, references=True),
        Kind(streams.SD3, "SD3", SD3),
        Kind(streams.SD35, "SD3", SD3),
        Kind(refiners.ANIMA, "Anima", {"qwen3_06b": refiners.ANIMA_WIDTH}),
        Kind(refiners.LUMINA2, "Lumina 2", {"gemma2_2b": 2304}),
        Kind(streams.CHROMA, "Chroma", T5),
        Kind(streams.LONGCAT, "LongCat", QWEN, references=True),
        Kind(refiners.OMNIGEN2, "OmniGen 2", {"qwen25_3b": 2048}, references=True),
        Kind(refiners.BOOGU, "Boogu", {"qwen3vl_8b": 4096}),
        Kind(
            replace(
                streams.IDEOGRAM,
                width=13 * IDEOGRAM,
                sizes={**streams.IDEOGRAM.sizes, "llm_features_dim": 13 * IDEOGRAM},
            ),
            "Ideogram 4",
            {"qwen3vl_8b": IDEOGRAM},
            unit=1,
        ),
        Kind(streams.MAGE_FLOW, "Mage-Flow", {"qwen3vl_4b": 2560}, unit=1),
        Kind(streams.HUNYUAN_IMAGE, "HunyuanImage", QWEN, unit=1),
        Kind(streams.HUNYUAN_VIDEO, "HunyuanVideo", {"llama": 4096, "clip_l": 768}),
        Kind(others.JOY_IMAGE, "JoyImage", {"qwen3vl_8b": 4096}),
        Kind(others.AURA_FLOW, "Chroma", {"t5xxl": 2048}),
        Kind(refiners.COSMOS, "Chroma", {"t5xxl": 1024}),
        Kind(refiners.WAN, "Chroma", T5),
        Kind(others.RADIANCE, "Chroma", T5, unit=16),
    )
}
OFTEN = (
    *("Qwen-Image", "Z-Image", "Krea 2") * 3,
    *("Flux.1 dev", "Flux.2 Klein", "SD3", "Anima") * 2,
    *KINDS,
)


@cache
def loaded(name: str) -> tuple[ModelPatcher, CLIP]:
    kind = KINDS[name]
    return kind.family.load(), encoder(kind.encoder, tuple(kind.widths.items()))


@cache
def encoder(name: str, widths: tuple[tuple[str, int], ...]) -> CLIP:
    return make_encoder(name, **dict(widths))


def lora(s: Scene, model: Link) -> Link:
    """A LoRA of rank 2 on every layer of the attention."""

    def add(model: ModelPatcher) -> ModelPatcher:
        generator, made = torch.Generator().manual_seed(17), {}
        for name, weight in model.model.diffusion_model.state_dict().items():
            if weight.ndim == 2 and "att" in name and name.endswith("weight"):
                key = f"diffusion_model.{name.removesuffix('.weight')}"
                rows, columns = weight.shape
                made[f"{key}.lora_up.weight"] = torch.randn(rows, 2, generator=generator) * 0.1
                made[f"{key}.lora_down.weight"] = torch.randn(2, columns, generator=generator) * 0.1
        return comfy.sd.load_lora_for_models(model, None, made, 0.8, 0)[0]

    return s.graph.call(add, model)


def overridden(s: Scene, model: Link) -> Link:
    """Another pack's attention in the slot for it."""

    def foreign(func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        return func(*args, **kwargs)

    def add(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = foreign
        return model

    return s.graph.call(add, model)


def left_out(s: Scene, model: Link) -> Link:
    """A block that is always left out."""

    def add(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        model.set_model_patch_replace(lambda args, extra: args, "dit", "double_block", 1)
        return model

    return s.graph.call(add, model)


SKIPPED: dict[str, Any] = {
    "double_layers": "0", "single_layers": "1", "start_percent": 0.0, "end_percent": 1.0,
}  # fmt: skip
SKIPS: dict[str, dict[str, Any]] = {
    "SkipLayerGuidanceDiT": {"scale": 2.0, "rescaling_scale": 0.0},
    "SkipLayerGuidanceDiT, rescaled": {"scale": 2.0, "rescaling_scale": 0.3},
}
CACHES = ("EasyCache", "LazyCache")
SHIFTS: dict[str, dict[str, Any]] = {
    "ModelSamplingAuraFlow": {"shift": 3.1},
    "ModelSamplingSD3": {"shift": 3.0},
    "ModelSamplingFlux": {"max_shift": 1.15, "base_shift": 0.5, "width": 512, "height": 512},
}
BESIDE: dict[str, Companion] = {
    companion.name: companion
    for companion in (
        *(COMPANIONS[name] for name in NODES if "AttentionGuidance" not in name),
        Companion("DifferentialDiffusion", model=partial(node, "DifferentialDiffusion")),
        *(Companion(name, model=partial(node, name, **given)) for name, given in SHIFTS.items()),
        *(Companion(name, model=partial(node, name, **CACHE)) for name in CACHES),
        *(
            Companion(name, model=partial(node, "SkipLayerGuidanceDiT", **SKIPPED, **given))
            for name, given in SKIPS.items()
        ),
        Companion("a LoRA", model=lora),
        Companion("another attention", model=overridden),
        Companion("a block left out", model=left_out),
        *(
            COMPANIONS[name]
            for name in (
                "an area", "a mask", "ranges of steps",
                "two negatives combined", "a zeroed negative", "ConditioningAverage",
                "a device for every prompt",
            )
        ),
    )
}  # fmt: skip
MISREAD = {"NAGuidance", "a device for every prompt"}  # numbers of prompts that are not there
SKIPPING = frozenset(CACHES)  # which steps they leave out hangs on source and edits together
