"""Who says which pairs are good: CLIP, a plain look at the pictures, or a scorer of one's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from p2p_core.pairs import Captions, Judged, judge_plainly
from p2p_pairs.settings import Settings


class Scorer(Protocol):
    """Judges the pairs of one caption."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of its numbers, the same for every pair."""
        ...

    def __call__(
        self, captions: Captions, kind: str, source: Tensor, edited: Tensor
    ) -> list[Judged]:
        """Pictures before and after, (K, H, W, 3) in 0…1, to K verdicts."""
        ...


class PlainScorer:
    """Looks at the pictures alone, and knows nothing of the words."""

    names = ("likeness",)

    def __call__(
        self, captions: Captions, kind: str, source: Tensor, edited: Tensor
    ) -> list[Judged]:
        return judge_plainly(source, edited)


class ClipScorer:
    """The paper's filter, as P2P Filter Pairs has it."""

    names = ("source_caption", "edited_caption", "directional", "image_image")

    def __init__(self, pack: Any, settings: Settings) -> None:
        for name in ("clip_vision", "text_encoder"):
            if not Path(getattr(settings, name)).is_file():
                raise ValueError(
                    f"The scorer clip needs {name}, a file of CLIP's; {getattr(settings, name)!r} "
                    "is none. Both must be of one CLIP (ViT-L: clip_vision_vit_l and clip_l). "
                    "Without them take the scorer plain."
                )
        self.judge = pack.host.NODE_CLASS_MAPPINGS["P2PFilterPairs"].judge
        self.clip_vision = pack.clip_vision(Path(settings.clip_vision))
        self.clip = pack.text_encoder(Path(settings.text_encoder))
        self.thresholds = settings.thresholds

    def __call__(
        self, captions: Captions, kind: str, source: Tensor, edited: Tensor
    ) -> list[Judged]:
        return self.judge(captions, source, edited, self.clip_vision, self.clip, self.thresholds)


def make_scorer(pack: Any, settings: Settings) -> Scorer:
    """The scorer that the settings name. One's own is called as `name(pack, settings)`."""
    if settings.scorer == "plain":
        return PlainScorer()
    if settings.scorer == "clip":
        return ClipScorer(pack, settings)
    module, colon, name = settings.scorer.partition(":")
    if not colon:
        raise ValueError(
            f"There is no scorer {settings.scorer!r}. Known: clip, plain, or module:name."
        )
    try:
        make: Callable[[Any, Settings], Scorer] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"The scorer {settings.scorer!r} cannot be had ({error}). Put its folder on PYTHONPATH."
        ) from error
    return make(pack, settings)
