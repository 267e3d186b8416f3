"""Other weights, other precision, other ways to hold and to run a model."""

from __future__ import annotations

from functools import cache, partial

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from host_run import Link
from scenes import Scene
from tiny_checkpoints import checkpoint, load
from torch import Tensor

from .companion import SENTENCE, Companion


def lora(model: ModelPatcher, clip: CLIP, seed: int) -> dict[str, Tensor]:
    """A LoRA of rank 2 on all cross-attention and on the text encoder, under the usual keys."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    parts = [("lora_unet_", model.model.diffusion_model, "attn2.to_"), *_encoders(clip)]
    for prefix, module, where in parts:
        for name, weight in module.state_dict().items():
            if where in name and name.endswith("weight"):
                key = prefix + name.removesuffix(".weight").replace(".", "_")
                rows, columns = weight.shape
                made[f"{key}.lora_up.weight"] = torch.randn(rows, 2, generator=generator) * 0.1
                made[f"{key}.lora_down.weight"] = torch.randn(2, columns, generator=generator) * 0.1
    return made


def _encoders(clip: CLIP) -> list[tuple]:
    names = {"clip_l": "lora_te_", "clip_h": "lora_te_", "clip_g": "lora_te2_"}
    parts = [(n, getattr(clip.cond_stage_model, n, None)) for n in names]
    both = sum(part is not None for _, part in parts) == 2
    prefixes = {**names, "clip_l": "lora_te1_"} if both else names
    return [(prefixes[n], part.transformer, "self_attn") for n, part in parts if part is not None]


def three_loras(s: Scene, model: Link) -> Link:
    def add(model: ModelPatcher, clip: CLIP) -> ModelPatcher:
        for seed in (11, 12, 13):
            model, _ = comfy.sd.load_lora_for_models(model, None, lora(model, clip, seed), 0.8, 0)
        return model

    return s.graph.call(add, model, s.clip)


def clip_lora(s: Scene, clip: Link) -> Link:
    def add(model: ModelPatcher, clip: CLIP) -> CLIP:
        return comfy.sd.load_lora_for_models(None, clip, lora(model, clip, 14), 0, 0.8)[1]

    return s.graph.call(add, s.model, clip)


def merged(s: Scene, model: Link) -> Link:
    """Half of the given model and half of another one."""
    return s.graph.add("ModelMergeSimple", model1=model, model2=_heavier(s), ratio=0.5)


def merged_away(s: Scene, model: Link) -> Link:
    """The given model as the second one, whose patches a merge drops."""
    return s.graph.add("ModelMergeSimple", model1=_heavier(s), model2=model, ratio=0.5)


def _heavier(s: Scene) -> Link:
    """The same checkpoint with other attention: heavier queries and keys."""
    names = ("UNetSelfAttentionMultiply", "UNetCrossAttentionMultiply")
    heavier = s.model
    for name in names:
        heavier = s.graph.add(name, model=heavier, q=1.3, k=1.2, v=0.8, out=1.1)
    return heavier


def multiplied(s: Scene, model: Link) -> Link:
    return s.graph.add("UNetCrossAttentionMultiply", model=model, q=1.2, k=1.1, v=0.9, out=1.0)


@cache
def typed(dtype: torch.dtype, name: str) -> tuple[ModelPatcher, CLIP]:
    """The family's checkpoint with weights of another type."""
    return load(name, checkpoint(name), dtype=dtype)


def computed(dtype: str, s: Scene, model: Link) -> Link:
    return s.graph.add("ModelComputeDtype", model=model, dtype=dtype)


@cache
def hungry(name: str) -> tuple[ModelPatcher, CLIP]:
    """A model that seems to need so much memory that the host evaluates prompts one by one."""
    model, clip = load(name, checkpoint(name))
    model.model.memory_usage_factor = 1e9
    return model, clip


@cache
def fresh(name: str) -> tuple[ModelPatcher, CLIP]:
    """A model of its own, for patches that stay on the network."""
    return load(name, checkpoint(name))


def compiled(s: Scene, model: Link) -> Link:
    """As TorchCompileModel, with the one backend that compiles nothing but finds every break."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    def add(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        set_torch_compile_wrapper(model=model, backend="eager")
        return model

    return s.graph.call(add, model)


COMPANIONS = [
    Companion("three LoRAs", model=three_loras),
    Companion("a LoRA on the text encoder", clip=clip_lora),
    Companion("a merge, the edited model first", model=merged),
    Companion("a merge, the edited model second", model=merged_away, expected=SENTENCE),
    Companion("attention multipliers", model=multiplied),
    Companion("weights in float16", load=partial(typed, torch.float16)),
    Companion("weights in bfloat16", load=partial(typed, torch.bfloat16)),
    Companion("weights in float8", load=partial(typed, torch.float8_e4m3fn)),
    Companion("computed in float16", model=partial(computed, "fp16"), tolerance=2e-2),
    Companion("computed in bfloat16", model=partial(computed, "bf16"), tolerance=1e-1),
    Companion("low memory", load=hungry),
    Companion("TorchCompileModel", load=fresh, model=compiled, families=("sd1",)),
]
