"""One edit of one prompt, and what it asks of the attention layers at a step.

With M_s, M_t the maps of the source and the edited row, R the mapper, a the refine weight, c the
equalizer and α the time window (a, c, α per target token), Prompt-to-Prompt sets

    M_new = α·c·(a·(M_s R) + (1-a)·M_t) + (1-α)·M_t,

which is linear in both maps. So it equals a pair (source_map, target_weight):

    M_new = M_s · source_map + M_t · diag(target_weight)
    source_map = R diag(α c a)        target_weight = 1 - α + α c (1 - a)

Hertz et al. 2022 (arXiv:2208.01626), algorithm 1 and section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .alignment import Aligner
from .local_blend import LocalBlend
from .prompt import Prompt
from .schedule import Window


class StepEdit(NamedTuple):
    """What one edit does at one step: source_map (T, T), target_weight (T,), self_attention."""

    source_map: Tensor
    target_weight: Tensor
    self_attention: bool

    @property
    def cross_attention(self) -> bool:
        """Whether the step changes cross-attention at all."""
        return bool(self.source_map.any()) or bool((self.target_weight != 1).any())


@dataclass(frozen=True, eq=False)
class PromptEdit:
    """An edit of ``source`` into ``target``.

    mapper: R, (T_s, T_t). refine: a, (T_t,). equalizer: c, (T_t,).
    windows: α, one Window per target column. self_window: when self-attention is injected.
    blend: where the edit may show, None for everywhere.
    """

    source: Prompt
    target: Prompt
    mapper: Tensor
    refine: Tensor
    equalizer: Tensor
    windows: tuple[Window, ...]
    self_window: Window
    blend: LocalBlend | None = None

    @property
    def common_window(self) -> Window:
        """The window of all columns but those of words that were given one of their own."""
        return self.windows[self.target.bos[0] if self.target.bos else 0]

    def open_windows(self, step: int, steps: int) -> frozenset[Window]:
        """Those of its windows that hold at a step; what it does follows from them."""
        windows = {*self.windows, self.self_window}
        return frozenset(window for window in windows if window.holds(step, steps))

    def at(self, step: int, steps: int) -> StepEdit:
        """The pair (source_map, target_weight) of this step, see the module's equation."""
        alpha = torch.tensor([float(window.holds(step, steps)) for window in self.windows])
        scale = alpha * self.equalizer
        return StepEdit(
            source_map=self.mapper * (scale * self.refine),
            target_weight=1 - alpha + scale * (1 - self.refine),
            self_attention=self.self_window.holds(step, steps),
        )

    def reweighted(self, columns: Sequence[int], scale: float) -> PromptEdit:
        """The same edit with the attention of some target columns multiplied by ``scale``.

        arXiv:2208.01626, "attention re-weighting"; scales of chained calls multiply.
        """
        if not math.isfinite(scale):
            raise ValueError(f"scale must be a finite number (the paper uses -2…2), got {scale}.")
        equalizer = self.equalizer.clone()
        equalizer[list(columns)] *= scale
        return replace(self, equalizer=equalizer)


def prompt_edit(
    source: Prompt, target: Prompt, align: Aligner, cross_window: Window, self_window: Window
) -> PromptEdit:
    """An edit with one time window for all words and no scaling."""
    mapper, refine = align(source, target)
    return PromptEdit(
        source=source,
        target=target,
        mapper=mapper,
        refine=refine,
        equalizer=torch.ones(target.length),
        windows=(cross_window,) * target.length,
        self_window=self_window,
    )


def with_word_window(edit: PromptEdit, columns: Sequence[int], window: Window) -> PromptEdit:
    """The same edit with another time window for some target columns."""
    chosen = set(columns)
    windows = tuple(window if i in chosen else old for i, old in enumerate(edit.windows))
    return replace(edit, windows=windows)
