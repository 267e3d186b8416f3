"""What P2P Prompt Weights puts on a model, before any run."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ....p2p_core.schedule import Window
from ....p2p_core.word_weights import WordWeights


@dataclass(frozen=True, eq=False)
class WeightPlan:
    """A prompt's weights, and where and how they act.

    tag: marks the prompt's conditioning. encodings: its texts, (T, D) each, more than one where
    the CLIP encodes on a schedule. words: its weighted columns. window: of the steps. blocks:
    numbers of attention blocks, None for all. scores: weights act on scores instead of values.
    image_only: only image queries see them. remade: the model makes its own columns of the text.
    """

    tag: str
    encodings: tuple[Tensor, ...]
    words: WordWeights
    window: Window
    blocks: frozenset[int] | None
    scores: bool
    image_only: bool
    remade: bool

    def acts_in(self, block: int) -> bool:
        return self.blocks is None or block in self.blocks
