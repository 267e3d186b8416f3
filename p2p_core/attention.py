"""Prompt-to-Prompt on fused attention: no map is ever materialised.

The edited map is M_new = M_s · S + M_t · diag(w) (see edits.py), so its product with the values is

    M_new V_t = M_s (S V_t) + M_t (w ⊙ V_t),

two ordinary attentions whose values were changed beforehand. Self-attention injection keeps the
source's map and the edited row's values: M_s V_t is attention with the source's queries and keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Rows(NamedTuple):
    """Where the edited rows and their sources stand in a batch; (E,) indices each."""

    source: Tensor
    edited: Tensor

    def to(self, device: torch.device) -> Rows:
        return Rows(self.source.to(device), self.edited.to(device))


class CrossEdit(NamedTuple):
    """S and w of the edited rows: source_map (E, T, T), target_weight (E, T)."""

    rows: Rows
    source_map: Tensor
    target_weight: Tensor


def edit_rows(groups: int, edits: int, offset: int = 0) -> Rows:
    """Rows of ``groups`` groups ``[source, edit 1 … edit n]`` that begin at row ``offset``."""
    group = offset + torch.arange(groups)[:, None] * (1 + edits)
    edited = (group + torch.arange(1, 1 + edits)).flatten()
    return Rows(group.expand(groups, edits).flatten(), edited)


def _attend_source(attend: Attend, q: Tensor, k: Tensor, v: Tensor, edit: CrossEdit) -> Tensor:
    """M_s (S V_t) of the edited rows, (E, Q, C)."""
    source, edited = edit.rows
    return attend(q[source], k[source], edit.source_map.to(v.dtype) @ v[edited])


def edited_cross_attention(
    attend: Attend, q: Tensor, k: Tensor, v: Tensor, edit: CrossEdit
) -> Tensor:
    """Cross-attention of a whole batch, with M_new V_t in the edited rows.

    q: (B, Q, C); k, v: (B, T, C). Returns (B, Q, C).
    """
    edited = edit.rows.edited
    weight = edit.target_weight.to(v.dtype)[..., None]
    out = attend(q, k, v.index_copy(0, edited, weight * v[edited]))
    return out.index_add(0, edited, _attend_source(attend, q, k, v, edit))


def cross_attention_change(
    attend: Attend, q: Tensor, k: Tensor, v: Tensor, edit: CrossEdit
) -> Tensor:
    """M_new V_t - M_t V_t of the edited rows, (E, Q, C).

    For layers whose attention someone else computes: add it to what they return.
    """
    edited = edit.rows.edited
    weight = edit.target_weight.to(v.dtype)[..., None]
    own = attend(q[edited], k[edited], (weight - 1) * v[edited])
    return _attend_source(attend, q, k, v, edit) + own


def inject_self_attention(x: Tensor, rows: Rows) -> Tensor:
    """What queries and keys are made of: the edited rows see the source's. x: (B, Q, C)."""
    return x.index_copy(0, rows.edited, x[rows.source])
