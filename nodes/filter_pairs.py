"""FilterPairs: of many pairs the good ones, best first. arXiv:2211.09800, section 3.1.2."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..p2p_core.pairs import (
    DIRECTIONAL,
    IMAGE_CAPTION,
    IMAGE_IMAGE,
    KEPT,
    Captions,
    Judged,
    Pairs,
    Selection,
    Thresholds,
    judge_plainly,
    select,
)
from .host.messages import text_on
from .host.pair_scores import judge_by_clip
from .sockets import PairsSocket

PLAIN = (
    "Without clip_vision and clip nothing was compared with the captions: pairs whose pictures are "
    "the same were left out, the most alike come first."
)


class FilterPairs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PFilterPairs",
            display_name="P2P Filter Pairs",
            category="p2p/data",
            description="Keeps the good pairs of P2P Make Pairs, best first: both pictures show "
            "what their captions say, they differ as the captions do, and are alike otherwise, "
            "all measured by CLIP. The thresholds are InstructPix2Pix's. (arXiv:2211.09800, "
            "section 3.1)",
            search_aliases=["clip filter", "directional similarity", "best pairs"],
            inputs=[
                PairsSocket.Input("pairs", tooltip="Of P2P Make Pairs."),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="CLIPVisionLoader with a CLIP (paper: ViT-L/14). Without it and clip "
                    "the pairs are only ordered by how alike they are.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The text encoder of the same CLIP, with its projection: for ViT-L a "
                    "CLIPLoader with clip_l.",
                ),
                _threshold(
                    "image_caption", IMAGE_CAPTION, "How well each picture shows its caption: "
                    "least cosine of their CLIP embeddings (paper: 0.2).",
                ),
                _threshold(
                    "directional", DIRECTIONAL, "Whether the picture changed as the caption did: "
                    "least cosine of the two changes in CLIP's space (arXiv:2108.00946; paper: "
                    "0.2). The pairs are ordered by it.",
                ),
                _threshold(
                    "image_image", IMAGE_IMAGE, "How alike the two pictures are: least cosine of "
                    "their CLIP embeddings (paper: 0.75; the authors' program: 0.7).",
                ),
                io.Int.Input(
                    "keep",
                    default=KEPT,
                    min=1,
                    max=10000,
                    optional=True,
                    tooltip="How many pairs to keep at most (paper: 4).",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="source", tooltip="The pictures before, best first."),
                io.Image.Output(display_name="edited", tooltip="The pictures after."),
                PairsSocket.Output(display_name="pairs", tooltip="The kept pairs with scores."),
                io.String.Output(
                    display_name="report",
                    tooltip="How many were kept, why the others were not, and the scores.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        pairs: Pairs,
        clip_vision: Any = None,
        clip: Any = None,
        image_caption: float = IMAGE_CAPTION,
        directional: float = DIRECTIONAL,
        image_image: float = IMAGE_IMAGE,
        keep: int = KEPT,
    ) -> io.NodeOutput:
        thresholds = Thresholds(image_caption, directional, image_image)
        pictures = pairs.source, pairs.edited
        judged = cls.judge(pairs.captions, *pictures, clip_vision, clip, thresholds)
        chosen = select(judged, keep)
        if clip_vision is None:
            logging.warning(PLAIN)
        if not chosen.kept:
            raise ValueError(
                f"No pair passed the filter ({chosen}). Make more samples, lower the thresholds, "
                "or see whether each caption alone gives a good picture."
            )
        kept = pairs.chosen(chosen.kept, judged)
        text_on(cls)(f"{chosen}")
        return io.NodeOutput(kept.source, kept.edited, kept, _report(kept, chosen, clip_vision))

    @classmethod
    def judge(
        cls,
        captions: Captions,
        source: Tensor,
        edited: Tensor,
        clip_vision: Any,
        clip: Any,
        thresholds: Thresholds,
    ) -> list[Judged]:
        """Verdicts on pairs of pictures (K, H, W, 3), by CLIP if there is one."""
        if (clip_vision is None) != (clip is None):
            there, lacking = ("clip_vision", "clip") if clip is None else ("clip", "clip_vision")
            raise ValueError(
                f"P2P Filter Pairs got {there} without {lacking}. Wire both, of one CLIP, or "
                "neither."
            )
        if clip_vision is None:
            return judge_plainly(source, edited)
        return judge_by_clip(clip_vision, clip, captions, source, edited, thresholds)


def _threshold(name: str, usual: float, tooltip: str) -> io.Input:
    return io.Float.Input(
        name, default=usual, min=-1.0, max=1.0, step=0.01, round=False, optional=True,
        tooltip=tooltip,
    )  # fmt: skip


def _report(kept: Pairs, chosen: Selection, clip_vision: Any) -> str:
    """What was kept and why, then a line of numbers for every kept pair."""
    lines = [str(chosen)] if clip_vision is not None else [str(chosen), PLAIN]
    for draw, judged in zip(kept.draws, kept.judged, strict=True):
        scores = ", ".join(f"{name} {value:.3f}" for name, value in judged.scores.items())
        shares = f"cross {draw.cross:.2f}, self {draw.self_:.2f}, cfg {draw.cfg:.1f}"
        lines.append(f"sample {draw.number} (seed {draw.seed}, {shares}): {scores}")
    return "\n".join(lines)


NODES = [FilterPairs]
