"""Which models, prompts and inversions null-text optimisation takes."""

from __future__ import annotations

import math
from typing import Any

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ....p2p_core.inversion import Inversion
from ....p2p_core.null_text import Settings
from ..families.unet import text_width
from ..fingerprint import fingerprint
from ..inversion.invert import check_plain_guidance, check_unpatched, source_prompt
from ..inversion.path import same_prompt
from ..runs import NULL_TEXT, own_hooks

LIMITS = ("area", "mask", "control", "gligen", "start_percent", "end_percent")


def check_inputs(
    model: Any, inversion: Inversion, positive: list, negative: list, settings: Settings
) -> None:
    """ValueError for a model, prompts, guidance or an inversion that cannot be optimised for."""
    check_unpatched(model)
    _check_settings(settings)
    if settings.inner_steps and math.isclose(settings.cfg, 1.0):
        raise ValueError(
            "At cfg 1 the negative has no part in the picture, so there is nothing to optimise. "
            "Set cfg to that of the sampler, such as 7.5, or leave this node out."
        )
    _check_model(model, inversion)
    _check_whole("positive", positive)
    prompt = source_prompt(positive)
    _check_whole("negative", negative)
    if inversion.prompt is not None and (
        prompt is None or not same_prompt(inversion.prompt, prompt)
    ):
        raise ValueError(
            "The positive is not the prompt that the inversion was made under. Wire the same "
            "CLIPTextEncode to P2P DDIM Invert and to P2P Null-Text Optimize."
        )


def _check_settings(settings: Settings) -> None:
    for name, value in vars(settings).items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a number, got {value}. Set it on the node.")


def _check_model(model: Any, inversion: Inversion) -> None:
    if inversion.method == "noise":
        raise ValueError(
            "P2P Noise Invert puts one fixed noise on the picture, which no prompt leads along, so "
            "null embeddings cannot follow it. Wire the inversion of P2P DDIM Invert."
        )
    unet = model.get_model_object("diffusion_model")
    if not isinstance(unet, UNetModel) or text_width(model) is None:
        raise ValueError(
            "Null-text optimisation needs a Stable Diffusion model whose UNet reads text, but this "
            f"one is {type(model.model).__name__} ({type(unet).__name__}). Load such a checkpoint."
        )
    if inversion.model is not None and not inversion.model.same(fingerprint(model)):
        raise ValueError(
            "The inversion was made with another model (or other LoRAs) than the one wired to "
            "P2P Null-Text Optimize. Invert the picture again with this model."
        )
    check_plain_guidance(model)


def limits(values: dict) -> list[str]:
    """What keeps a prompt from being one for the whole picture and all steps, by its keys."""
    hooks = ["hooks"] if own_hooks(values.get("hooks")) else []
    return [key for key in LIMITS if values.get(key) is not None] + hooks


def _check_whole(name: str, conditioning: list) -> None:
    """One prompt, for the whole picture and all steps."""
    if not conditioning:
        raise ValueError(f"{name} is an empty conditioning. Wire a CLIPTextEncode to {name}.")
    if any(NULL_TEXT.mark in values for _, values in conditioning):
        raise ValueError(
            f"The {name} comes from another P2P Null-Text Optimize, whose embeddings would be lost "
            f"here. Wire a CLIPTextEncode to {name}."
        )
    found = [key for _, values in conditioning for key in limits(values)]
    if len(conditioning) != 1 or found:
        what = f"limited or steered ({', '.join(found)})" if found else "combined from several"
        raise ValueError(
            f"Null-text optimisation needs one prompt for the whole picture and all steps, but the "
            f"{name} is {what}. Wire a CLIPTextEncode to {name}."
        )
