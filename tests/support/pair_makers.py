"""Makers of pairs that need no model: pictures of noise, and captions that go wrong."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np

from p2p_pairs.captions import Caption
from p2p_pairs.rows import Outcome, part_bytes, png
from p2p_pairs.settings import Settings

SIDE = 64  # pixels


def captions(count: int, *others: str) -> list[Caption]:
    """So many captions, and one for each of the other sources."""
    sources = [*(f"cat {number}" for number in range(count)), *others]
    return [Caption(source, "turn it into a dog", f"dog of {source}") for source in sources]


class NoiseMaker:
    """A part with up to three pairs, which follow from the caption's key alone.

    'poison' fails. 'killer' kills its process, 'killer once FILE' only if FILE is not there yet.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def make(self, caption: Caption) -> bytes:
        if caption.source == "poison":
            return part_bytes([], Outcome(caption.key, error="ValueError: poison"), ("rank",))
        if caption.source.startswith("killer"):
            flag = Path(caption.source.removeprefix("killer once "))
            if not flag.exists():
                if caption.source != "killer":
                    flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        rng = random.Random(caption.key)
        time.sleep(rng.random() / 50)
        rows = [_row(caption, number) for number in range(rng.randrange(4))]
        outcome = Outcome(caption.key, 5, len(rows), {"too low": 5 - len(rows)})
        return part_bytes(rows, outcome, ("rank",))


def _row(caption: Caption, number: int) -> dict:
    key = f"{caption.key}_{number:04d}"
    noise = np.random.default_rng(int(caption.key, 16) + number)
    pictures = noise.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    return {
        "key": key,
        "original_prompt": caption.source,
        "edit_prompt": caption.instruction,
        "edited_prompt": caption.edited,
        "kind": caption.kind,
        "original_image": {"bytes": png(pictures[0]), "path": f"{key}_0.png"},
        "edited_image": {"bytes": png(pictures[1]), "path": f"{key}_1.png"},
        "sample": number,
        "seed": 2**32 - 1 - number,
        "cross_share": 0.5,
        "self_share": 0.25,
        "cfg": 7.5,
        "score_rank": number / 4,
    }
