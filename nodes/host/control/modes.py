"""What an edit asks of a transformer's attention at a step, in either mode.

qk: image queries and keys become the source's (arXiv:2508.07519); words are scaled through their
values. hybrid: the joint map is edited as Prompt-to-Prompt edits a cross-attention map.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ....p2p_core.edits import PromptEdit
from ....p2p_core.schedule import Window, layout_window

MODES = ("auto", "qk", "hybrid")


class Ask(NamedTuple):
    """What one edited row asks for, over the columns of the network's text.

    inject: the source's image queries and keys (qk), or its self-attention (hybrid). scale: of the
    words' values, (T,), None for 1. source_map S, (T_s, T), and target_weight w, (T,): of the
    hybrid map, None in qk. idle: whether attention stays as it is.
    """

    inject: bool
    scale: Tensor | None
    source_map: Tensor | None
    target_weight: Tensor | None
    idle: bool


class Columns(NamedTuple):
    """Where a prompt's columns stand among those of the network's text.

    first: of the prompt's columns there. count: how many. total: columns of the network's text.
    """

    first: int
    count: int
    total: int


def asked(
    mode: str, edit: PromptEdit, step: int, steps: int, source: Columns, target: Columns
) -> Ask:
    """What an edit asks for at a step. mode: qk or hybrid; auto is qk in its default window."""
    if mode == "hybrid":
        state = edit.at(step, steps)
        alpha = float(_usual(edit).holds(step, steps))
        mapping = _widened(state.source_map, alpha, source, target)
        weight = torch.full((target.total,), 1.0)
        own = slice(target.first, target.first + target.count)
        weight[own] = state.target_weight
        paired = mapping.sum(dim=0) > 0
        paired[own] = False
        weight[paired] = 1 - alpha
        idle = not state.self_attention and bool((weight == 1).all())
        return Ask(state.self_attention, None, mapping, weight, idle)
    inject, scale = _injects(mode, edit, step, steps), _scale(edit, step, steps, target)
    return Ask(inject, scale, None, None, not inject and scale is None)


def _injects(mode: str, edit: PromptEdit, step: int, steps: int) -> bool:
    window = edit.self_window if mode == "qk" else layout_window(edit.self_window, steps)
    return window.holds(step, steps)


def source_window(mode: str, cross: Window, self_: Window, steps: int) -> Window:
    """In which steps of a run an edit with these windows looks at its source."""
    if mode == "hybrid":
        return Window(min(cross.start, self_.start), max(cross.end, self_.end))
    return self_ if mode == "qk" else layout_window(self_, steps)


def looks(mode: str, edit: PromptEdit, step: int, steps: int) -> bool:
    """Whether an edit looks at its source at a step."""
    if mode == "hybrid":
        state = edit.at(step, steps)
        padding = _usual(edit).holds(step, steps)
        return padding or state.cross_attention or state.self_attention
    return _injects(mode, edit, step, steps)


def _usual(edit: PromptEdit):
    """The window that most columns have: padding follows it."""
    return Counter(edit.windows).most_common(1)[0][0]


def _scale(edit: PromptEdit, step: int, steps: int, target: Columns) -> Tensor | None:
    """1 - α + α c of every column."""
    alpha = torch.tensor([float(window.holds(step, steps)) for window in edit.windows])
    scale = 1 - alpha + alpha * edit.equalizer
    if bool((scale == 1).all()):
        return None
    behind = target.total - target.first - target.count
    return F.pad(scale, (target.first, behind), value=1.0)


def _widened(mapper: Tensor, alpha: float, source: Columns, target: Columns) -> Tensor:
    """S over the network's columns: padding maps to padding where both prompts have it."""
    wide = torch.zeros(source.total, target.total)
    wide[source.first : source.first + source.count, target.first : target.first + target.count] = (
        mapper
    )
    for column in range(min(source.total, target.total)):
        both = all(not side.first <= column < side.first + side.count for side in (source, target))
        if both:
            wide[column, column] = alpha
    return wide
