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
Rows = slice | Tensor  # of a batch; a slice needs no index on the device


class Source(NamedTuple):
    """What M_s is made of: queries (E, Q, C) and keys (E, T_s, C), one source for every edit."""

    q: Tensor
    k: Tensor


class CrossEdit(NamedTuple):
    """S and w of the edited rows.

    edited: where they stand in the batch, E rows. source_map: S, (E, T_s, T). target_weight: w,
    (E, T). source_alone: whether w = 0 everywhere, so that only M_s is left.
    """

    edited: Rows
    source_map: Tensor
    target_weight: Tensor
    source_alone: bool = False


def as_rows(positions: Sequence[int], device: torch.device) -> Rows:
    """Rows of a batch by their positions: a slice where they are evenly spaced."""
    steps = {after - before for before, after in zip(positions, positions[1:], strict=False)}
    if positions and len(steps) <= 1 and min(steps, default=1) > 0:
        return slice(positions[0], positions[-1] + 1, *steps)
    return torch.tensor(positions, dtype=torch.long, device=device)


def count(rows: Rows) -> int:
    """How many rows they are."""
    if isinstance(rows, slice):
        return len(range(rows.start, rows.stop, rows.step or 1))
    return len(rows)


def with_rows(x: Tensor, rows: Rows, new: Tensor) -> Tensor:
    """A copy of x, (B, …), in which some rows are the new ones."""
    copy = x.clone()
    copy[rows] = new
    return copy


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
        rows = as_rows([i for i, own in enumerate(lengths) if own == length], q.device)
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
    rows = edit.edited
    if edit.source_alone and lengths is None and source.k.shape[1] == k.shape[1]:
        mapped = edit.source_map.to(v.dtype) @ v[rows]
        replaced = ((q, source.q), (k, source.k), (v, mapped))
        return attend(*(with_rows(x, rows, new) for x, new in replaced))
    weighted = with_rows(v, rows, edit.target_weight.to(v.dtype)[..., None] * v[rows])
    out = attend_columns(attend, q, k, weighted, lengths)
    return with_rows(out, rows, out[rows] + _attend_source(attend, v, source, edit))


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
    own_lengths = None if lengths is None else chosen(lengths, rows)
    own = attend_columns(attend, q[rows], k[rows], (weight - 1) * v[rows], own_lengths)
    return _attend_source(attend, v, source, edit) + own


def chosen(values: Sequence[int], rows: Rows) -> Sequence[int]:
    """The values of some rows."""
    return values[rows] if isinstance(rows, slice) else [values[row] for row in rows.tolist()]


def _attend_source(attend: Attend, v: Tensor, source: Source, edit: CrossEdit) -> Tensor:
    """M_s (S V_t) of the edited rows, (E, Q, C)."""
    return attend(source.q, source.k, edit.source_map.to(v.dtype) @ v[edit.edited])
