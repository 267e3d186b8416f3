"""InstructPix2Pix's filter of pairs, with the host's CLIP Vision and CLIP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...p2p_core.metrics import caption_similarity, directional_similarity, image_similarity
from ...p2p_core.pairs import Captions, Judged, Thresholds
from .embeddings import image_embeddings, text_embeddings


def judge_by_clip(
    clip_vision: Any,
    clip: Any,
    captions: Captions,
    source: Tensor,
    edited: Tensor,
    thresholds: Thresholds,
) -> list[Judged]:
    """Verdicts on the pairs of one caption triple, pictures (K, H, W, 3) in 0…1.

    Brooks et al. 2022 (arXiv:2211.09800), section 3.1.2. clip_vision, clip: of one CLIP (the paper
    takes ViT-L/14). Raises ValueError if they are not.
    """
    before, after = (image_embeddings(clip_vision, pictures) for pictures in (source, edited))
    texts = [captions.source, captions.edited]
    old, new = text_embeddings(clip, texts, before.shape[-1]).split(1)
    scores = torch.stack(
        [
            caption_similarity(before, old),
            caption_similarity(after, new),
            directional_similarity(before, after, old, new),
            image_similarity(before, after),
        ],
        dim=1,
    )
    return [thresholds.judge(*row) for row in scores.tolist()]
