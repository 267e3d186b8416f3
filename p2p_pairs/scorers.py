"""Who says which pairs are good: CLIP, a plain look at the pictures, or a scorer of one's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from p2p_core.pairs import Captions, Judged
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
    """Looks at the pictures alone: a pair must differ; the more alike, the better.

    It knows nothing of the words. likeness: 1 - mean absolute difference, in 0…1.
    """

    names = ("likeness",)

    def __call__(
        self, captions: Captions, kind: str, source: Tensor, edited: Tensor
    ) -> list[Judged]:
        likeness = (1 - (source - edited).abs().mean((1, 2, 3))).tolist()
        return [Judged(one, "nothing changed" if one == 1 else None, {"likeness": one})
                for one in likeness]  # fmt: skip


def make_scorer(pack: Any, settings: Settings) -> Scorer:
    """The scorer that the settings name. One's own is called as `name(pack, settings)`."""
    if settings.scorer == "plain":
        return PlainScorer()
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
