"""Prompt-to-Prompt on fused attention: no map is ever materialised.

The edited map is M_new = M_s · S + M_t · diag(w) (see edits.py), so its product with the values is

    M_new V_t = M_s (S V_t) + M_t (w ⊙ V_t),

two ordinary attentions whose values were changed beforehand. Self-attention injection keeps the
source's map and the edited row's values: M_s V_t is attention with the source's queries and keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Source(NamedTuple):
    """What M_s is made of: queries (E, Q, C) and keys (E, T_s, C), one source for every edit."""

    q: Tensor
    k: Tensor


class CrossEdit(NamedTuple):
    """S and w of the edited rows.

    edited: where they stand in the batch, (E,). source_map: S, (E, T_s, T). target_weight: w,
    (E, T).
    """

    edited: Tensor
    source_map: Tensor
    target_weight: Tensor


def attend_columns(
    attend: Attend, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int] | None
) -> Tensor:
    """Attention in which row i sees only its first ``lengths[i]`` columns; None: all of them.

    q: (B, Q, C); k, v: (B, T, C). Prompts of different length stand in one batch that way, at the
    cost of the longest. Returns (B, Q, C).
    """
    if lengths is None or all(length == k.shape[1] for length in lengths):
        return attend(q, k, v)
    out = torch.empty_like(q)
    for length in sorted(set(lengths)):
        rows = torch.tensor([i for i, own in enumerate(lengths) if own == length], device=q.device)
        out[rows] = attend(q[rows], k[rows, :length], v[rows, :length])
    return out


def edited_cross_attention(
    attend: Attend,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    source: Source,
    edit: CrossEdit,
    lengths: Sequence[int] | None = None,
) -> Tensor:
    """Cross-attention of a whole batch, with M_new V_t in the edited rows.

    q: (B, Q, C); k, v: (B, T, C); lengths: as for ``attend_columns``. Returns (B, Q, C).
    """
    weight = edit.target_weight.to(v.dtype)[..., None]
    weighted = v.index_copy(0, edit.edited, weight * v[edit.edited])
    out = attend_columns(attend, q, k, weighted, lengths)
    return out.index_add(0, edit.edited, _attend_source(attend, v, source, edit))


def cross_attention_change(
    attend: Attend,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    source: Source,
    edit: CrossEdit,
    lengths: Sequence[int] | None = None,
) -> Tensor:
    """M_new V_t - M_t V_t of the edited rows, (E, Q, C); arguments as above.

    For layers whose attention someone else computes: add it to what they return.
    """
    rows = edit.edited
    weight = edit.target_weight.to(v.dtype)[..., None]
    own_lengths = lengths and [lengths[row] for row in rows.tolist()]
    own = attend_columns(attend, q[rows], k[rows], (weight - 1) * v[rows], own_lengths)
    return _attend_source(attend, v, source, edit) + own


def _attend_source(attend: Attend, v: Tensor, source: Source, edit: CrossEdit) -> Tensor:
    """M_s (S V_t) of the edited rows, (E, Q, C)."""
    return attend(source.q, source.k, edit.source_map.to(v.dtype) @ v[edit.edited])
