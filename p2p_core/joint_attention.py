"""Prompt-to-Prompt where text and image attend to each other in one call (diffusion transformers).

Queries and keys hold text positions t, image positions i and others o (padding, registers,
references). With the source's q_s, k_s and the edited row's q_e, k_e, v_e there are two ways to
keep the source's layout:

    qk       softmax(q' k'ᵀ) v_e          q', k': the edited row's, at image positions the source's
    hybrid   M_s [S v_t; β v_o; β v_i] + M_e [w ⊙ v_t; (1-β) v_o; (1-β) v_i]    at image queries

with M_s = softmax(q_s k_sᵀ), M_e = softmax(q_e k_eᵀ), the pair (S, w) of edits.py and β = 1 while
self-attention is injected, else 0. Text queries keep M_e v_e. In `qk` the text queries see the
source's image keys too, so that one attention call does it all. Scores are q kᵀ / √d throughout.

qk: Kim et al. 2025 (arXiv:2508.07519). hybrid: Hertz et al. 2022 (arXiv:2208.01626), eq. of
section 3.2, applied to the rows of a joint map.

Every tensor here has rows in its first axis and positions in its last but one: (B, L, H * D) and
(B, H, L, D) both fit. `attend(q, k, v)` is any attention that keeps to that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .attention import Attend, Rows, count

SourceMap = Callable[[Tensor], Tensor]
OwnMap = Callable[[Rows, Tensor], Tensor]


class Places(NamedTuple):
    """Positions of one attention call, as slices where they are evenly spaced.

    text: T of the keys, in the order of the map's columns; image: of the keys, none for pure
    cross-attention; rest: all other keys. queries: of the image; others: all other queries.
    """

    text: Rows
    image: Rows
    rest: Rows
    queries: Rows
    others: Rows


class JointEdit(NamedTuple):
    """What a step asks of the edited rows: source_map S (E, T_s, T), target_weight w (E, T).

    self_attention: β, (E,) bool, or one for all rows. own_part: whether the edited rows' own map
    takes part anywhere; False saves its attention.
    """

    source_map: Tensor
    target_weight: Tensor
    self_attention: Tensor | bool
    own_part: bool = True


def at(x: Tensor, positions: Rows) -> Tensor:
    """Some positions of x: (B, …, n, C); a view for a slice."""
    if isinstance(positions, slice):
        return x[..., positions, :]
    return x.index_select(-2, positions)


def put(x: Tensor, positions: Rows, new: Tensor) -> Tensor:
    """Set some positions of x, (B, …, L, C), in place; returns it."""
    if isinstance(positions, slice):
        x[..., positions, :] = new
        return x
    return x.index_copy_(-2, positions, new)


def joint_qk(
    x: Tensor, rows: Rows, source: Tensor, positions: Rows, source_positions: Rows
) -> Tensor:
    """q' or k': a batch's x in whose edited rows the image positions are the source's.

    x: (B, …, L, C); source: (E, …, L_s, C). Returns (B, …, L, C).
    """
    new = x.clone()
    edited = new[rows]  # a view for a slice
    put(edited, positions, at(source, source_positions))
    if not isinstance(rows, slice):
        new[rows] = edited
    return new


def _columns(x: Tensor, weights: Tensor) -> Tensor:
    """weights (E, …) as a factor or a matrix that broadcasts over the heads of x (E, …, L, C)."""
    return weights.to(x.dtype).reshape(len(weights), *[1] * (x.ndim - 3), *weights.shape[1:])


def source_values(
    v: Tensor, edit: JointEdit, source: Places, edited: Places, length: int
) -> Tensor:
    """The values that the source's map reads, [S v_t; β v_o; β v_i], at its ``length`` positions.

    v: (E, …, L, C) of the edited rows. Other positions are paired in order, so there must be as
    many of them; Places.text may include those that should be paired otherwise.
    """
    rest = count(source.rest), count(edited.rest)
    if rest[0] != rest[1]:
        raise ValueError(
            f"The source has {rest[0]} attention positions beside text and image, the edited "
            f"prompt {rest[1]}: they cannot be paired. Use prompts of like length."
        )
    out = v.new_zeros(*v.shape[:-2], length, v.shape[-1])
    put(out, source.text, _columns(v, edit.source_map) @ at(v, edited.text))
    if edit.self_attention is False:
        return out
    kept = v if edit.self_attention is True else _columns(v, _beta(edit)) * v
    put(out, source.image, at(kept, edited.image))
    return put(out, source.rest, at(kept, edited.rest))


def own_values(v: Tensor, edit: JointEdit, places: Places) -> Tensor:
    """What the edited row's own map reads, [w ⊙ v_t; (1-β) v_o; (1-β) v_i]. (E, …, L, C)"""
    if edit.self_attention is True:
        out = torch.zeros_like(v)
    else:
        out = v.clone() if edit.self_attention is False else _columns(v, ~_beta(edit)) * v
    return put(out, places.text, _columns(v, edit.target_weight[..., None]) * at(v, places.text))


def _beta(edit: JointEdit) -> Tensor:
    """β as a factor, (E, 1, 1) bool."""
    assert isinstance(edit.self_attention, Tensor)
    return edit.self_attention[:, None, None]


def joint_hybrid(
    source_map: SourceMap,
    own_map: OwnMap,
    v: Tensor,
    length: int,
    edit: JointEdit,
    places: Places,
    source: Places,
) -> Tensor:
    """Attention of edited rows with the source's map at the image queries. (E, Q, C')

    source_map(values) is M_s · values at the image queries, for values (E, …, L_s, C) at the
    source's ``length`` positions L_s; own_map(queries, values) is M_e · values at some queries. v:
    (E, …, L, C) of the edited rows. The module's equation; text queries keep their own attention.
    Three attentions at most, of which the one for the text queries is small.
    """
    image = source_map(source_values(v, edit, source, places, length))
    if edit.own_part:
        image = image + own_map(places.queries, own_values(v, edit, places))
    if not count(places.others):
        return image
    rest = own_map(places.others, v)
    out = image.new_empty(*image.shape[:-2], image.shape[-2] + rest.shape[-2], image.shape[-1])
    return put(put(out, places.queries, image), places.others, rest)


def scaled_values(v: Tensor, positions: Rows, scale: Tensor, mean: bool = False) -> Tensor:
    """Values whose words count ``scale`` times: v_j <- c_j v_j, so that M diag(c) V comes out.

    v: (B, …, L, C); positions: n of them, scale: (n,) or (B, n). arXiv:2208.01626, "attention
    re-weighting". With ``mean``, a negative c_j scales about the mean m of the text values whose
    scale is 1: v_j <- m + c_j (v_j - m), which leaves what all words have in common.
    """
    scale = scale.expand(len(v), -1) if scale.ndim == 1 else scale
    text = at(v, positions)
    factor = _columns(v, scale[..., None])
    new = factor * text
    if mean and bool((scale < 0).any()):
        kept = _columns(v, (scale == 1)[..., None])
        centre = (kept * text).sum(dim=-2, keepdim=True) / kept.sum(dim=-2, keepdim=True).clamp(1)
        new = torch.where(factor < 0, centre + factor * (text - centre), new)
    return put(v.clone(), positions, new)


def indicator_values(v: Tensor, words: Sequence[Rows], heads: int) -> Tensor:
    """Values whose channel j of every head is 1 at the positions of word j, and 0 elsewhere.

    v: (B, L, heads * D) or (B, H, L, D), only its shape counts. At most D words.
    """
    split = v.ndim == 3
    out = torch.zeros_like(v)
    by_head = out.unflatten(-1, (heads, -1)) if split else out
    if len(words) > by_head.shape[-1]:
        raise ValueError(
            f"At most {by_head.shape[-1]} words can be followed at once, got {len(words)}."
        )
    for number, positions in enumerate(words):
        if split:
            by_head[:, positions, :, number] = 1
        else:
            by_head[:, :, positions, number] = 1
    return out


def word_mass(
    attend: Attend,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    words: Sequence[Rows],
    heads: int,
    value_heads: int | None = None,
) -> Tensor:
    """How much of each query's attention goes to each word, averaged over heads. (B, Q, words)

    words: the key positions of each, so word j's mass is the sum of the map's columns there. It is
    read off fused attention over indicator values; no map is made. value_heads: of v, if fewer.
    attend must return (B, Q, heads * D).
    """
    out = attend(q, k, indicator_values(v, words, value_heads or heads))
    return out.unflatten(-1, (heads, -1))[..., : len(words)].float().mean(dim=-2)
