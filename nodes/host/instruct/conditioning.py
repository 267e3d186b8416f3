"""What an InstructPix2Pix model is given to sample: encoded pictures, marked conditionings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import torch
from comfy.model_base import IP2P
from torch import Tensor

from ....p2p_core.guidance import checked_image_cfg
from ..runs import INSTRUCT, marked
from .run import with_instruct, without_image
from .wiring import InstructPlan, guides_by_itself

FITS = ("crop", "pad")
PATCH = 8  # pixels of a latent's cell


def instruct(
    model: Any,
    positive: list[list],
    negative: list[list],
    vae: Any,
    image: Tensor,
    image_cfg: float,
    fit: str,
) -> tuple[Any, list[list], list[list], list[list], dict]:
    """The node's outputs (model, positive, negative, uncond, latent).

    image: (B, H, W, 3). Raises ValueError for a model that was not trained for instructions, a
    picture that cannot be encoded, and batches that do not fit together.
    """
    check_instruct_model(model)
    if vae is None:
        raise ValueError(
            "There is no VAE: the checkpoint holds none. Load one with VAELoader and wire it to "
            "IP2PConditioning."
        )
    checked_image_cfg(image_cfg)
    pixels = fitting(checked_image(image), fit)
    prompts = _prompts(len(pixels), positive, negative)
    # As the VAE gives it: InstructPix2Pix was trained on pictures encoded without the scale
    # factor of the latents, and the host concatenates them as they are.
    encoded = vae.encode(pixels)
    _check_channels(model, encoded)
    plan = InstructPlan(uuid4().hex, image_cfg, tuple(encoded.shape), prompts)
    pictures = {"concat_latent_image": encoded}
    rows = max(len(encoded), prompts)
    return (
        with_instruct(model, plan),
        _marked(positive, plan, "positive", pictures),
        _marked(negative, plan, "negative", pictures),
        _marked(negative, plan, "uncond", {}),
        {"samples": encoded.new_zeros(rows, *encoded.shape[1:])},
    )


def check_instruct_model(model: Any) -> None:
    """ValueError for a model that does not read a picture beside its latent."""
    channels = model.model.model_config.unet_config.get("in_channels")
    needed = 2 * model.model.latent_format.latent_channels
    if not isinstance(model.model, IP2P) or channels != needed:
        raise ValueError(
            f"Editing by instruction needs an InstructPix2Pix model with {needed} input channels, "
            f"but this one is {type(model.model).__name__} with {channels}. Load an "
            "instruct-pix2pix checkpoint, such as instruct-pix2pix-00-22000.safetensors."
        )


def doubts(model: Any, extras: Sequence[list] | None) -> str | None:
    """What to tell of a word edit whose model reads a picture, but is given none.

    extras: a conditioning that may carry one.
    """
    given = any("concat_latent_image" in values for _, values in extras or ())
    if given or not isinstance(model.model, IP2P):
        return None
    return (
        "This model follows instructions on a given picture, and there is none here. For edits by "
        "words load a text-to-image model; for an instruction use IP2P Conditioning."
    )


def checked_image(image: Tensor) -> Tensor:
    """The IMAGE, or ValueError unless it is (B, H, W, 3) of at least 8 by 8 pixels."""
    if image.ndim != 4 or image.shape[-1] not in (3, 4) or not len(image):
        raise ValueError(
            "image must be a batch of RGB pictures, (batch, height, width, 3), got the shape "
            f"{tuple(image.shape)}. Use LoadImage."
        )
    if image.shape[-1] == 4:
        raise ValueError(
            "image has an alpha channel, which InstructPix2Pix cannot see. Use "
            "SplitImageWithAlpha, or lay the picture on a background first."
        )
    height, width = image.shape[1:3]
    if min(height, width) < PATCH:
        raise ValueError(
            f"image is {width}x{height} pixels, but must be at least {PATCH}x{PATCH}. Enlarge it; "
            "the checkpoint was trained at 256x256 and works well at 512x512."
        )
    return image


def fitting(image: Tensor, fit: str) -> Tensor:
    """The pictures with sides that are multiples of 8 pixels. (B, H, W, 3)

    crop: cut off evenly on both sides. pad: repeat the last row and column, on the right and
    below, so that the picture keeps its place. Raises ValueError for another word.
    """
    if fit not in FITS:
        raise ValueError(f"fit must be one of {', '.join(FITS)}, got {fit!r}.")
    height, width = image.shape[1:3]
    if fit == "crop":
        top, left = height % PATCH // 2, width % PATCH // 2
        rows, columns = (size // PATCH * PATCH for size in (height, width))
        return image[:, top : top + rows, left : left + columns]
    down, right = (
        torch.arange(-(-size // PATCH) * PATCH, device=image.device).clamp_max(size - 1)
        for size in (height, width)
    )
    return image[:, down][:, :, right]


def _prompts(pictures: int, positive: list[list], negative: list[list]) -> int:
    """Rows of the prompts; ValueError if there are none, or not as many as there are pictures."""
    sizes = {"image": pictures, "positive": _rows(positive), "negative": _rows(negative)}
    if not sizes["positive"]:
        raise ValueError("positive is an empty conditioning. Wire CLIPTextEncode: an instruction.")
    if not sizes["negative"]:
        raise ValueError("negative is an empty conditioning. Wire CLIPTextEncode: an empty text.")
    if len(set(sizes.values()) - {1}) > 1:
        got = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(
            f"Every row of the batch needs its picture and its prompts, but they differ: {got}. "
            "Give each of them the same number, or one for all (ImageFromBatch, RepeatImageBatch)."
        )
    return max(sizes["positive"], sizes["negative"])


def _rows(conditioning: list[list]) -> int:
    return max((1 if cross is None else len(cross) for cross, _ in conditioning), default=0)


def _check_channels(model: Any, encoded: Tensor) -> None:
    expected = model.get_model_object("latent_format").latent_channels
    if encoded.ndim != 4 or encoded.shape[1] != expected:
        raise ValueError(
            f"The VAE makes latents of shape {tuple(encoded.shape)}, but the model needs "
            f"{expected} channels of still pictures. Use the VAE of the model's own checkpoint."
        )


def _marked(
    conditioning: list[list], plan: InstructPlan, role: str, pictures: dict[str, Tensor]
) -> list[list]:
    """The conditioning with (or without) the pictures, marked so that a run knows it again."""
    prepared = [[cross, {**without_image(values), **pictures}] for cross, values in conditioning]
    mark = (plan.tag, role)
    if role == "positive" and plan.image_cfg != 1.0:  # else image_cfg would be ignored in silence
        return marked(prepared, INSTRUCT, plan.tag, mark, free=guides_by_itself)
    return [[cross, {**values, INSTRUCT.mark: mark}] for cross, values in prepared]
