"""How good an edit is: what CLIP sees in it, and how far pixels are from the source's.

Embeddings are (B, D), of one CLIP's image encoder or text encoder behind its projection; their
length does not matter. Pictures are (B, H, W, C) in 0…1. A mask is (B, H, W) or (1, H, W) in 0…1:
how much a place counts. All functions return one number for each picture, (B,).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # Wang et al. 2004, section III.C
K1, K2 = 0.01, 0.03


def image_similarity(image: Tensor, other: Tensor) -> Tensor:
    """Cosine of two pictures' CLIP embeddings: how much an edit kept of its source.

    InstructPix2Pix (arXiv:2211.09800), section 3.1, keeps pairs above 0.75.
    """
    return F.cosine_similarity(image.float(), other.float(), dim=-1)


def caption_similarity(image: Tensor, caption: Tensor) -> Tensor:
    """Cosine of a picture's and a caption's CLIP embedding: how well it shows what the text says.

    Radford et al. 2021 (arXiv:2103.00020); InstructPix2Pix (arXiv:2211.09800), section 3.1, keeps
    pairs whose pictures both reach 0.2 with their own caption.
    """
    return F.cosine_similarity(image.float(), caption.float(), dim=-1)


def directional_similarity(
    source_image: Tensor, edited_image: Tensor, source_caption: Tensor, edited_caption: Tensor
) -> Tensor:
    """Whether the picture changed as its caption did: cos(ΔI, ΔT) with unit embeddings,

        ΔI = E_I(edited) - E_I(source)        ΔT = E_T(edited caption) - E_T(source caption).

    Gal et al. 2021 (arXiv:2108.00946), eq. 2; InstructPix2Pix (arXiv:2211.09800), section 3.1.2,
    keeps pairs above 0.2. 0 where picture or caption did not change at all.
    """
    pictures = _unit(edited_image) - _unit(source_image)
    captions = _unit(edited_caption) - _unit(source_caption)
    return F.cosine_similarity(pictures, captions, dim=-1)


def _unit(embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings.float(), dim=-1)


def mean_squared_error(picture: Tensor, other: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of (picture - other)² over channels and places, weighted by the mask."""
    squares = (picture.float() - other.float()).square().mean(dim=-1)
    return masked_mean(squares, mask)


def psnr(picture: Tensor, other: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB, 10·log10(1 / MSE); infinite for equal pictures.

    With a mask the mean runs over its region alone. PIE-Bench (arXiv:2310.01506) blackens the rest
    and divides by the whole picture, which reads higher by -10·log10(the region's share).
    """
    return -10 * torch.log10(mean_squared_error(picture, other, mask))


def ssim(picture: Tensor, other: Tensor, mask: Tensor | None = None) -> Tensor:
    """Structural similarity, 1 for equal pictures.

    Wang et al. 2004 (doi:10.1109/TIP.2003.819861), eq. 13, over a Gaussian window of 11x11 around
    every place, mirrored at the picture's edge, averaged over channels and places. With a mask a
    window's moments are those of the region's places alone, so nothing beyond its edge counts, and
    windows count as their centres do. Raises ValueError for pictures smaller than a window.
    """
    height, width = picture.shape[1:3]
    if min(height, width) < WINDOW:
        raise ValueError(
            f"SSIM looks at windows of {WINDOW}x{WINDOW} pixels, but the pictures are "
            f"{width}x{height}. Use larger ones."
        )
    x, y = (p.float().movedim(-1, 1) for p in (picture, other))
    weights = torch.ones_like(x[:, :1]) if mask is None else _fitting(mask, x)[:, None]
    total = _windowed(weights).clamp_min(1e-12)
    mean_x, mean_y, xx, yy, xy = (
        _windowed(moment * weights) / total for moment in (x, y, x * x, y * y, x * y)
    )
    c1, c2 = K1**2, K2**2
    variances = (xx - mean_x**2) + (yy - mean_y**2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = (2 * (xy - mean_x * mean_y) + c2) / (variances + c2)
    return masked_mean((luminance * contrast).mean(dim=1), weights[:, 0])


def _windowed(x: Tensor) -> Tensor:
    """Gaussian means around every place, (B, C, H, W)."""
    places = torch.arange(WINDOW, device=x.device) - WINDOW // 2
    kernel = torch.exp(-places.float().square() / (2 * SIGMA**2))
    kernel, channels = kernel / kernel.sum(), x.shape[1]
    rows = kernel.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1)
    padded = F.pad(x, (WINDOW // 2,) * 4, mode="reflect")
    blurred = F.conv2d(padded, rows, groups=channels)
    return F.conv2d(blurred, rows.transpose(2, 3), groups=channels)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of values (B, H, W) weighted by a mask of that size; NaN where it is empty."""
    if mask is None:
        return values.mean(dim=(1, 2))
    weights = _fitting(mask, values)
    return (values * weights).sum(dim=(1, 2)) / weights.sum(dim=(1, 2))


def _fitting(mask: Tensor, values: Tensor) -> Tensor:
    return mask.to(values).expand(len(values), *mask.shape[1:])


def checked_mask(mask: Tensor) -> Tensor:
    """A mask (H, W) or (B, H, W) in 0…1, as (B, H, W).

    Raises ValueError for another shape, for an empty one and for values that are not numbers.
    """
    mask = mask[None] if mask.ndim == 2 else mask
    mask = mask[:, 0] if mask.ndim == 4 and mask.shape[1] == 1 else mask
    if mask.ndim != 3:
        raise ValueError(
            f"mask must have the shape (batch, height, width), got {tuple(mask.shape)}. Use "
            "ImageToMask or a mask node."
        )
    if not torch.isfinite(mask).all():
        raise ValueError("mask has values that are not numbers (NaN or infinite). Make it anew.")
    mask = mask.float().clamp(0, 1)
    if not mask.amax(dim=(1, 2)).gt(0).all():
        raise ValueError("mask is empty, so there is nothing to measure inside. Draw a region.")
    return mask


def mask_for(mask: Tensor, pictures: Tensor) -> Tensor:
    """A mask (1 or B, …) at the size of pictures (B, H, W, C); ValueError for another number."""
    if len(mask) not in (1, len(pictures)):
        raise ValueError(
            f"mask must be one mask, or one for each of the {len(pictures)} pictures, but has "
            f"{len(mask)}."
        )
    size = (pictures.shape[1], pictures.shape[2])
    if mask.shape[1:] == size:
        return mask
    return F.interpolate(mask[:, None], size=size, mode="area")[:, 0]
