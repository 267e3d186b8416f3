"""Pairs of pictures for training on instructions: what is drawn at random, and what is kept.

Brooks et al. 2022 (arXiv:2211.09800), section 3.1.2 and the appendix on paired images: a caption
pair is sampled 100 times, each time from another seed and with another share p ~ U(0.1, 0.9) of the
steps whose attention the second picture takes from the first; kept are pairs with an image-caption
similarity of at least 0.2 for both pictures, a directional similarity (arXiv:2108.00946) of at
least 0.2 and an image-image similarity of at least 0.75; best direction first, at most 4. Their
published program asks for 0.7 instead of 0.75, and draws the guidance scale from U(7.5, 15).

Everything random follows from (dataset seed, caption key, number of the sample), so that whoever
makes a pair makes the same one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from torch import Tensor

Range = tuple[float, float]
SAMPLES = 100
SHARES: Range = (0.1, 0.9)
CFG: Range = (7.5, 15.0)
IMAGE_CAPTION, DIRECTIONAL, IMAGE_IMAGE = 0.2, 0.2, 0.75
KEPT = 4


class Draw(NamedTuple):
    """One sample's random numbers; cross, self_: shares of the steps, from the first."""

    number: int
    seed: int
    cross: float
    self_: float
    cfg: float


@dataclass(frozen=True)
class Recipe:
    """What pairs are drawn from.

    cross, self_: ranges of the shares of injected cross- and self-attention. self_ None: the same
    share as cross. (The authors' program injects self-attention alone: cross (0, 0).)
    together: as many samples in a row share one draw but for their noise, and are sampled in one
    batch; 1 is the paper's way.
    """

    samples: int = SAMPLES
    cross: Range = SHARES
    self_: Range | None = None
    cfg: Range = CFG
    together: int = 1

    def __post_init__(self) -> None:
        """ValueError for what cannot be drawn."""
        for name in ("samples", "together"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        for name, bounds in (("cross", self.cross), ("self_", self.self_ or self.cross)):
            checked_range(name, bounds, 0.0, 1.0)
        checked_range("cfg", self.cfg, 0.0, math.inf)

    def draws(self, dataset_seed: int, key: str) -> list[Draw]:
        """The draws of one caption, `together` of each in a row; key: of its Captions."""
        return [self._draw(dataset_seed, key, number) for number in range(self.samples)]

    def _draw(self, dataset_seed: int, key: str, number: int) -> Draw:
        rng = Random(f"{dataset_seed} {key} {number - number % self.together}")
        seed, cross = rng.randrange(2**32), rng.uniform(*self.cross)
        self_ = cross if self.self_ is None else rng.uniform(*self.self_)
        return Draw(number, seed, cross, self_, rng.uniform(*self.cfg))


def checked_range(name: str, bounds: Sequence[float], least: float, most: float) -> Range:
    """The range (low, high); ValueError if it is none or leaves least … most."""
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and least <= low <= high <= most):
        limit = f"{least:g}…{most:g}" if math.isfinite(most) else f"{least:g} or more"
        raise ValueError(
            f"{name} must be a range (low, high) within {limit}, got ({low:g}, {high:g})."
        )
    return low, high


class Captions(NamedTuple):
    """What the pictures before and after show, and the instruction for the way between them."""

    source: str
    instruction: str
    edited: str

    @property
    def key(self) -> str:
        """The triple's name, the same wherever it stands in a file: 16 hex digits."""
        return hashlib.sha256("\0".join(self).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Judged:
    """What a scorer says of one pair. refused: why it is not kept, None if it may be.

    rank: higher is better. scores: by name, for the record.
    """

    rank: float
    refused: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Pairs:
    """P2P_PAIRS: pairs of one caption triple, the pictures (K, H, W, 3) in 0…1.

    judged: what a scorer said of each of them, if one was asked.
    """

    captions: Captions
    draws: tuple[Draw, ...]
    source: Tensor
    edited: Tensor
    judged: tuple[Judged, ...] = ()

    def chosen(self, numbers: Sequence[int], judged: Sequence[Judged]) -> Pairs:
        """These pairs alone, in this order; judged: what was said of all pairs."""
        at = list(numbers)
        draws, said = tuple(self.draws[i] for i in at), tuple(judged[i] for i in at)
        return Pairs(self.captions, draws, self.source[at], self.edited[at], said)


@dataclass(frozen=True)
class Thresholds:
    """Least CLIP similarities (cosines) of a pair that is kept."""

    image_caption: float = IMAGE_CAPTION
    directional: float = DIRECTIONAL
    image_image: float = IMAGE_IMAGE

    def judge(
        self, source_caption: float, edited_caption: float, directional: float, image_image: float
    ) -> Judged:
        """The verdict on one pair from its four similarities; ranked by direction."""
        scores = {
            "source_caption": source_caption,
            "edited_caption": edited_caption,
            "directional": directional,
            "image_image": image_image,
        }
        least = (self.image_caption, self.image_caption, self.directional, self.image_image)
        failed = [
            name.replace("_", " ")
            for (name, value), limit in zip(scores.items(), least, strict=True)
            if not value >= limit  # also what is no number
        ]
        return Judged(directional, ", ".join(failed) + " too low" if failed else None, scores)


def judge_plainly(source: Tensor, edited: Tensor) -> list[Judged]:
    """Verdicts without CLIP on pictures (K, H, W, 3) in 0…1: the more alike, the better.

    likeness: 1 - mean absolute difference. Only a pair that does not differ at all is refused;
    nobody looks whether the pictures show what the captions say.
    """
    likeness = (1 - (source - edited).abs().mean((1, 2, 3))).tolist()
    return [
        Judged(one, "nothing changed" if one == 1 else None, {"likeness": one}) for one in likeness
    ]


@dataclass(frozen=True)
class Selection:
    """kept: numbers of pairs, best first. reasons: how many of the others were refused for what."""

    kept: tuple[int, ...]
    tried: int
    reasons: Mapping[str, int]

    def __str__(self) -> str:
        """Such as '4 of 100 pairs kept; 60: directional too low; 36: beyond the best 4'."""
        told = [f"{count}: {why}" for why, count in self.reasons.items()]
        return "; ".join([f"{len(self.kept)} of {self.tried} pairs kept", *told])


def select(judged: Sequence[Judged], most: int = KEPT) -> Selection:
    """At most so many of the pairs that no scorer refused, best first (ties: the earlier)."""
    if most < 1:
        raise ValueError(f"The number of pairs to keep must be 1 or more, got {most}.")
    passed = [number for number, one in enumerate(judged) if one.refused is None]
    passed.sort(key=lambda number: -judged[number].rank)
    reasons: dict[str, int] = {}
    for one in judged:
        if one.refused is not None:
            reasons[one.refused] = reasons.get(one.refused, 0) + 1
    if len(passed) > most:
        reasons[f"beyond the best {most}"] = len(passed) - most
    ordered = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    return Selection(tuple(passed[:most]), len(judged), ordered)
