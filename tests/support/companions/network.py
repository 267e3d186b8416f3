"""Patches inside the network: of its blocks, its attention, and of the text that it reads."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from host_run import Link
from scenes import Scene
from torch import Tensor

from .companion import SENTENCE, Companion
from .guidance import node

PLACES = (("input", 4, 0), ("input", 5, 0), ("middle", 0, 0), ("output", 3, 0), ("output", 5, 0))


def louder(q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
    return 1.3 * optimized_attention(q, k, v, extra["n_heads"])


def replaced(s: Scene, model: Link) -> Link:
    """A pack that puts a plain function in the place of some layers' cross-attention."""

    def add(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        for name, number, index in PLACES:
            model.set_model_attn2_replace(louder, name, number, transformer_index=index)
        return model

    return s.graph.call(add, model)


class ImagePrompt:
    """IPAdapter's shape: an object on the block, to which the next one adds; its own attention to
    the tokens of a picture comes on top of what the text says."""

    def __init__(self) -> None:
        self.strengths: list[float] = []

    def add(self, strength: float) -> None:
        self.strengths.append(strength)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        heads = extra_options["n_heads"]
        out = optimized_attention(q, k, v, heads)
        for strength in self.strengths:
            picture = torch.sin(k[:, :4] * 3)
            out = out + strength * optimized_attention(q, picture, picture, heads)
        return out


def image_prompt(s: Scene, model: Link) -> Link:
    def add(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        options = model.model_options["transformer_options"]
        options["patches_replace"] = replaces = {**options.get("patches_replace", {})}
        replaces["attn2"] = blocks = {**replaces.get("attn2", {})}
        for key in PLACES:
            if key not in blocks:
                blocks[key] = ImagePrompt()
            blocks[key].add(0.4)
        return model

    return s.graph.call(add, model)


def two_image_prompts(s: Scene, model: Link) -> Link:
    return image_prompt(s, image_prompt(s, model))


def with_attn2_patch(patch: Any, s: Scene, model: Link) -> Link:
    """A patch of what cross-attention reads, before the projection."""

    def add(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        model.set_model_attn2_patch(patch)
        return model

    return s.graph.call(add, model)


def couple(n: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple:
    """Regional prompts: the rows once more for every region."""
    return tuple(torch.cat([x, x]) for x in (n, context, value))


def couple_out(out: Tensor, extra: dict) -> Tensor:
    """The regions put together again, each in its half of the picture."""
    first, second = out.chunk(2)
    half = first.shape[1] // 2
    return torch.cat([first[:, :half], second[:, half:]], dim=1)


def coupled(s: Scene, model: Link) -> Link:
    def add(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        model.set_model_attn2_patch(couple)
        model.set_model_attn2_output_patch(couple_out)
        return model

    return s.graph.call(add, model)


def appended(n: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple:
    """Tokens of a picture behind those of the text."""
    more = torch.sin(context[:, :4])
    return n, torch.cat([context, more], dim=1), torch.cat([value, more], dim=1)


def quieter(n: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple:
    return n, context, value * 0.9


def negated_clip(s: Scene, clip: Link) -> Link:
    """NegPiP's shape: the encoder writes every column twice, as key and as value."""

    def add(clip: CLIP) -> CLIP:
        clip = clip.clone()
        text = clip.cond_stage_model
        encode = text.encode_token_weights

        def twice(tokens: dict) -> tuple:
            cond, *rest = encode(tokens)
            return (torch.stack([cond, cond * 0.5], dim=2).flatten(1, 2), *rest)

        clip.patcher.add_object_patch("encode_token_weights", twice)
        return clip

    return s.graph.call(add, clip)


def negating(n: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple:
    return n, context[:, 0::2], value[:, 1::2]


FREE_U = {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}
SHRINK = {
    "block_number": 3, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 0.5,
    "downscale_after_skip": True, "downscale_method": "bicubic", "upscale_method": "bicubic",
}  # fmt: skip
TILES = {"tile_size": 32, "swap_size": 1, "max_depth": 2, "scale_depth": False}
COMPANIONS = [
    Companion("FreeU", model=partial(node, "FreeU", **FREE_U)),
    Companion("FreeU_V2", model=partial(node, "FreeU_V2", **FREE_U)),
    Companion("Deep Shrink", model=partial(node, "PatchModelAddDownscale", **SHRINK)),
    Companion("HyperTile", model=partial(node, "HyperTile", **TILES)),
    Companion(
        "Token Merging", model=partial(node, "TomePatchModel", ratio=0.4), self_attention=False,
        why="self-attention: positions are merged by what they hold",
    ),
    Companion("a replaced cross-attention", model=replaced),
    Companion("an image prompt (IPAdapter)", model=image_prompt),
    Companion("two image prompts", model=two_image_prompts),
    Companion("scaled values (attn2 patch)", model=partial(with_attn2_patch, quieter)),
    Companion("regions by rows (couple)", model=coupled, expected=SENTENCE),
    Companion(
        "appended columns", model=partial(with_attn2_patch, appended), expected=SENTENCE
    ),
    Companion(
        "negated columns (NegPiP)", model=partial(with_attn2_patch, negating), clip=negated_clip,
        expected=SENTENCE,
    ),
]  # fmt: skip
