"""Guidance by an instruction and by the picture that it changes: InstructPix2Pix.

Brooks et al. 2023 (arXiv:2211.09800), eq. 3, with two scales:

    e = e(∅, ∅) + s_I (e(I, ∅) - e(∅, ∅)) + s_T (e(I, T) - e(I, ∅))

The weights of the three predictions add up to 1, so the equation holds alike for predicted noise,
for v and for denoised latents.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def checked_image_cfg(image_cfg: float) -> float:
    """s_I, or ValueError unless it is a number from 0 upwards."""
    if not (math.isfinite(image_cfg) and image_cfg >= 0.0):
        raise ValueError(
            f"image_cfg must be a number from 0 upwards, got {image_cfg:g}. The paper uses 1.0 to "
            "2.5; 1.5 is a good start."
        )
    return image_cfg


def cfg_pair(
    uncond: Tensor, image: Tensor, text: Tensor, image_cfg: float, text_cfg: float
) -> tuple[Tensor, Tensor]:
    """The (cond, uncond) from which ordinary guidance, with scale s_T, makes eq. 3.

    uncond = e(∅, ∅), image = e(I, ∅), text = e(I, T): (B, C, h, w). Exact for every s_I and s_T.

    While the image's guidance is the weaker one, |s_I - 1| <= |s_T - 1|, cond is e(I, T) itself,
    so whatever compares the result with cond (such as rescaled guidance, arXiv:2305.08891, which
    gives it cond's deviation) finds what it expects. All of the image's guidance is in uncond, on
    the way from e(I, ∅) to e(∅, ∅). That way becomes endless near s_T = 1, where uncond drops out
    of the result; there both get the image's guidance, as a shift that leaves their difference.
    """
    if image_cfg == 1.0:
        return text, image
    if abs(image_cfg - 1.0) <= abs(text_cfg - 1.0):
        return text, torch.lerp(image, uncond, (image_cfg - 1.0) / (text_cfg - 1.0))
    shift = (image_cfg - 1.0) * (image - uncond)
    return text + shift, image + shift


def cfg_pp_pair(
    uncond: Tensor, image: Tensor, text: Tensor, image_cfg: float, text_cfg: float
) -> tuple[Tensor, Tensor]:
    """The same for samplers of CFG++ (arXiv:2406.08070), which step along uncond itself.

    So uncond is e(∅, ∅), and cond gets what is left of the image's guidance. Arguments as for
    ``cfg_pair``; s_T must not be 0.
    """
    return text + (image_cfg / text_cfg - 1.0) * (image - uncond), uncond
