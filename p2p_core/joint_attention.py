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

from .attention import Attend

SourceMap = Callable[[Tensor], Tensor]
OwnMap = Callable[[Tensor, Tensor], Tensor]


class Places(NamedTuple):
    """Positions of one attention call.

    text: of the keys, (T,), in the order of the map's columns; image: of the keys, (I,), empty for
    pure cross-attention. queries: of the image, (I',); others: all other queries.
    """

    text: Tensor
    image: Tensor
    queries: Tensor
    others: Tensor


class JointEdit(NamedTuple):
    """What a step asks of the edited rows: source_map S (E, T_s, T), target_weight w (E, T).

    self_attention: β, (E,) bool. own_part: whether the edited rows' own map takes part anywhere;
    False saves its attention.
    """

    source_map: Tensor
    target_weight: Tensor
    self_attention: Tensor
    own_part: bool = True


def at(x: Tensor, positions: Tensor) -> Tensor:
    """Some positions of x: (B, …, len(positions), C)."""
    return x.index_select(-2, positions)


def joint_qk(x: Tensor, source: Tensor, positions: Tensor, source_positions: Tensor) -> Tensor:
    """q' or k': the edited rows' x with the source's at the image positions. (E, …, L, C)"""
    return x.index_copy(-2, positions, at(source, source_positions))


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
    others = _beside(source, length), _beside(edited, v.shape[-2])
    if len(others[0]) != len(others[1]):
        raise ValueError(
            f"The source has {len(others[0])} attention positions beside text and image, the "
            f"edited prompt {len(others[1])}: they cannot be paired. Use prompts of like length."
        )
    out = v.new_zeros(*v.shape[:-2], length, v.shape[-1])
    text = _columns(v, edit.source_map) @ at(v, edited.text)
    beta = edit.self_attention.to(v.dtype)[:, None, None]
    out = out.index_copy(-2, source.text, text)
    kept = _columns(v, beta) * v
    out = out.index_copy(-2, source.image, at(kept, edited.image))
    return out.index_copy(-2, others[0], at(kept, others[1]))


def own_values(v: Tensor, edit: JointEdit, places: Places) -> Tensor:
    """What the edited row's own map reads, [w ⊙ v_t; (1-β) v_o; (1-β) v_i]. (E, …, L, C)"""
    weight = edit.target_weight[..., None]
    rest = 1 - edit.self_attention.to(v.dtype)[:, None, None]
    text = _columns(v, weight) * at(v, places.text)
    return (_columns(v, rest) * v).index_copy(-2, places.text, text)


def _beside(places: Places, length: int) -> Tensor:
    """Key positions that are neither text nor image."""
    free = torch.ones(length, dtype=torch.bool, device=places.text.device)
    free[places.text] = False
    free[places.image] = False
    return free.nonzero()[:, 0]


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
    if not len(places.others):
        return image
    rest = own_map(places.others, v)
    out = image.new_empty(*image.shape[:-2], image.shape[-2] + rest.shape[-2], image.shape[-1])
    return out.index_copy(-2, places.queries, image).index_copy(-2, places.others, rest)


def scaled_values(v: Tensor, positions: Tensor, scale: Tensor, mean: bool = False) -> Tensor:
    """Values whose words count ``scale`` times: v_j <- c_j v_j, so that M diag(c) V comes out.

    v: (B, …, L, C); positions: (n,), scale: (n,) or (B, n). arXiv:2208.01626, "attention
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
    return v.index_copy(-2, positions, new)


def indicator_values(v: Tensor, words: Sequence[Tensor], heads: int) -> Tensor:
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
    words: Sequence[Tensor],
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
