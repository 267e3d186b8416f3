"""The demo model's latent: what every 8×8 patch looks like on average.

Three channels are the patch's mean colour, the fourth how much lighter its upper half is than
its lower half. They are fixed by hand, so the diffusion model does not have to wait for an
autoencoder: the encoder's weights are set to compute exactly these numbers (`vae.build_encoder`)
and the decoder learns to paint the sharp picture that they come from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 8
MEAN = (0.59, 0.51, 0.477, 0.0)  # of colours in [0, 1]
SCALE = (3.0, 3.0, 3.0, 6.0)
LUMA = (0.299, 0.587, 0.114)


def picture_latents(pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] to latents (B, 4, H / 8, W / 8)."""
    colour = F.avg_pool2d(pictures, PATCH)
    luma = (pictures * pictures.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    halves = F.avg_pool2d(luma, (PATCH // 2, PATCH))
    slope = halves[:, :, 0::2] - halves[:, :, 1::2]
    latents = torch.cat((colour, slope), dim=1)
    mean, scale = (latents.new_tensor(v).view(1, 4, 1, 1) for v in (MEAN, SCALE))
    return (latents - mean) * scale
