"""Scores of edited pictures beside their sources, by whatever encoders there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...p2p_core.metrics import (
    caption_similarity,
    checked_mask,
    directional_similarity,
    image_similarity,
    mask_for,
    psnr,
    ssim,
)
from ...p2p_core.scores import PLACES, SCORES
from ...p2p_core.structure import plain_structure_distance, structure_distance
from .embeddings import image_embeddings, structure_keys, text_embeddings
from .lpips_network import NONE, Lpips


class Scorer:
    """Scores of edits; made for one run of a node, since it keeps the captions' embeddings.

    clip_vision, clip: of one CLIP, for its similarities. dino: for its structure distance. mask:
    what an edit may change, one or one a seed, for what is measured outside and inside of it. All
    may be None. lpips: a network's name, or "none".
    """

    def __init__(
        self, clip_vision: Any = None, clip: Any = None, dino: Any = None,
        mask: Tensor | None = None, lpips: str = NONE,
    ) -> None:  # fmt: skip
        if clip_vision is None and clip is not None:
            raise ValueError(
                "score_clip reads the prompts for CLIP's similarities, which need a clip_vision "
                "too. Wire CLIPVisionLoader to clip_vision, or leave score_clip out."
            )
        self.clip_vision, self.clip, self.dino = clip_vision, clip, dino
        self.mask = None if mask is None else checked_mask(mask).cpu()
        self.lpips = None if lpips == NONE else Lpips(lpips)
        self._captions: dict[str, Tensor] = {}

    @property
    def names(self) -> list[str]:
        """The scores that it measures."""
        places = PLACES if self.mask is not None else PLACES[:1]
        pixels = ("psnr", "ssim") if self.lpips is None else ("psnr", "ssim", "lpips")
        found = {"structure_distance", *(f"{name}{place}" for name in pixels for place in places)}
        if self.dino is not None:
            found.add("dino_structure_distance")
        if self.clip_vision is not None:
            found.add("image_similarity")
        if self.clip is not None:
            found |= {"directional_similarity", "caption_similarity", "source_caption_similarity"}
        return [name for name in SCORES if name in found]

    def scores(
        self, sources: Tensor, edits: Tensor, source_caption: str, captions: Sequence[str]
    ) -> list[dict[str, float]]:
        """The scores of each edit, by name.

        sources: (S, H, W, 3), one a seed. edits: (S * n, H, W, 3), the first seed's n, then the
        next's. captions: of the n edits. Raises ValueError for pictures that differ in size or
        have values that are no numbers.
        """
        sources, edits = _checked(sources), _checked(edits)
        if sources.shape[1:] != edits.shape[1:]:
            raise ValueError(
                f"Source and edit must have one size, but are {tuple(sources.shape[1:3])} and "
                f"{tuple(edits.shape[1:3])} (height, width). Wire the pictures of one run."
            )
        per_seed = len(edits) // len(sources)
        found = self._pixels(sources, edits, per_seed)
        if self.clip_vision is not None:
            found |= self._clip(sources, edits, source_caption, list(captions), per_seed)
        if self.dino is not None:
            keys = structure_keys(self.dino, sources).repeat_interleave(per_seed, 0)
            edited = structure_keys(self.dino, edits)
            found["dino_structure_distance"] = structure_distance(keys, edited)
        return [
            {name: float(values[i]) for name, values in found.items()} for i in range(len(edits))
        ]

    def _pixels(self, sources: Tensor, edits: Tensor, per_seed: int) -> dict[str, Tensor]:
        places: dict[str, Tensor | None] = {"": None}
        if self.mask is not None:
            inside = mask_for(self.mask, sources)
            inside = inside.repeat_interleave(per_seed, 0) if len(inside) > 1 else inside
            places |= {"_outside": 1 - inside, "_inside": inside}
        sources = sources.repeat_interleave(per_seed, 0)
        found = {"structure_distance": plain_structure_distance(sources, edits)}
        for place, mask in places.items():
            found[f"psnr{place}"] = psnr(sources, edits, mask)
            found[f"ssim{place}"] = ssim(sources, edits, mask)
            if self.lpips is not None:
                found[f"lpips{place}"] = self.lpips(sources, edits, mask)
        return found

    def _clip(
        self, sources: Tensor, edits: Tensor, source_caption: str, captions: list[str],
        per_seed: int,
    ) -> dict[str, Tensor]:  # fmt: skip
        before = image_embeddings(self.clip_vision, sources).repeat_interleave(per_seed, 0)
        after = image_embeddings(self.clip_vision, edits)
        found = {"image_similarity": image_similarity(before, after)}
        if self.clip is None:
            return found
        texts = [source_caption, *captions]
        lacking = [text for text in dict.fromkeys(texts) if text not in self._captions]
        if lacking:
            made = text_embeddings(self.clip, lacking, before.shape[-1])
            self._captions |= dict(zip(lacking, made, strict=True))
        old = self._captions[source_caption][None]
        new = torch.stack([self._captions[text] for text in captions])
        new = new.repeat(len(sources), 1)
        found["directional_similarity"] = directional_similarity(before, after, old, new)
        found["caption_similarity"] = caption_similarity(after, new)
        found["source_caption_similarity"] = caption_similarity(before, old)
        return found


def _checked(pictures: Tensor) -> Tensor:
    pictures = pictures[..., :3].float().cpu()
    if not torch.isfinite(pictures).all():
        raise ValueError(
            "A picture has values that are no numbers (NaN or infinite), so it cannot be scored. "
            "Run the VAE in fp32 (--fp32-vae), and look at the picture."
        )
    return pictures
