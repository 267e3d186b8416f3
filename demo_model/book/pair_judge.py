"""The picture book's judge as the scorer of `python -m p2p_pairs make`.

A pair is kept if the source is what its caption says, the edit is what its own says, and what
should stay has stayed: the picture outside the thing, or the thing where the place changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from book.edits import OUTSIDE, Case, case_of, score, shows
from book.judge import judge_pictures
from book.reading import read_prompt
from p2p_core.pairs import Captions, Judged

LEAST_KEPT = 22.0  # dB outside the things
SAME_PLACE = 0.75  # overlap of the thing before and after, where the rest changes


class PairJudge:
    """kept: PSNR in dB of what should stay; overlap: IoU of the thing before and after."""

    names = ("kept", "overlap")

    def __init__(self, _pack: Any, _settings: Any) -> None:
        """Scorers are made with the host and the settings; this one needs neither."""

    def __call__(
        self, captions: Captions, kind: str, source: Tensor, edited: Tensor
    ) -> list[Judged]:
        """Verdicts on pairs of pictures (K, 128, 128, 3) in 0…1."""
        case = case_of(kind, read_prompt(captions.source), read_prompt(captions.edited))
        pairs = zip(_eight_bit(source), _eight_bit(edited), strict=True)
        return [_verdict(before, after, case) for before, after in pairs]


def _verdict(before: np.ndarray, after: np.ndarray, case: Case) -> Judged:
    measured = score(before, after, case)
    outside = case.stays == OUTSIDE
    rank, least = (measured.kept, LEAST_KEPT) if outside else (measured.structure, SAME_PLACE)
    scores = {"kept": measured.kept, "overlap": measured.structure}
    if not shows(judge_pictures(before[None])[0], case.source):
        return Judged(rank, "the source is not what its caption says", scores)
    if not measured.success:
        return Judged(rank, "the edit is not what its caption says", scores)
    what = "the rest changed" if outside else "the thing changed"
    return Judged(rank, None if rank > least else what, scores)


def _eight_bit(pictures: Tensor) -> np.ndarray:
    return pictures.mul(255).round().byte().cpu().numpy()
