"""Word weights as a factor on attention, for every query and without another map.

With a weight c_j for every word, Prompt-to-Prompt's re-weighting (arXiv:2208.01626, section 3.2)
multiplies the map's columns. That is a factor on the words' values:

    values    M diag(c) V = M (c ⊙ V)          linear in c; what a word adds, c times
    scores    softmax(q kᵀ / √d + log c) V     the word's share before normalising, c times

A negative c also takes away what all words have in common, which the network's next
normalisation turns into lost contrast. So a negative weight scales about the mean m of the words
that keep weight 1: v_j <- m + c_j (v_j - m); about zero where there is no such word. A share
cannot be negative or zero, so in `scores` weights up to 0 act on the values too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .attention import Attend, Rows, with_rows


@dataclass(frozen=True, eq=False)
class WordWeights:
    """The words of an encoding. columns: (n,) of all of them; weights: (n,), 1 for most."""

    columns: Tensor
    weights: Tensor

    def strengthened(self, strength: float) -> WordWeights:
        """Weights 1 + strength (c - 1): 0 takes them away, 2 doubles their distance from 1."""
        return WordWeights(self.columns, 1 + strength * (self.weights - 1))

    @cached_property
    def neutral(self) -> bool:
        """Whether they change nothing."""
        return bool((self.weights == 1).all())

    def spread(self, length: int, offset: int = 0) -> tuple[Tensor, Tensor]:
        """Weight of each of ``length`` columns, and which belong to words, (length,) each."""
        weights, words = torch.ones(length), torch.zeros(length, dtype=torch.bool)
        weights[self.columns + offset] = self.weights
        words[self.columns + offset] = True
        return weights, words


class Weighted(NamedTuple):
    """Words among the keys of one attention call, and what is done to them.

    positions: (n,). factor: (n,) on their values. pull: (n,) on the mean m, 1 - c where c < 0, else
    0. share: (n,) of each word in m. bias: (n,) on their scores, None for none. negative: whether a
    factor is.
    """

    positions: Tensor
    factor: Tensor
    pull: Tensor
    share: Tensor
    bias: Tensor | None
    negative: bool

    def to(self, device: torch.device, dtype: torch.dtype) -> Weighted:
        """For values on a device, in their type."""
        return Weighted(
            self.positions.to(device),
            self.factor.to(device, dtype),
            self.pull.to(device, dtype),
            self.share.to(device),
            None if self.bias is None else self.bias.to(device),
            self.negative,
        )


def weighted(positions: Tensor, weights: Tensor, scores: bool) -> Weighted:
    """What weights (n,) of words at ``positions`` do to values and, if asked, to scores."""
    biased = (weights > 0) & (weights != 1) & scores
    factor = torch.where(biased, torch.ones_like(weights), weights)
    bias = torch.where(biased, weights.clamp(min=1e-30).log(), torch.zeros_like(weights))
    negative, kept = factor < 0, (weights == 1).to(weights)
    pull, share = torch.where(negative, 1 - factor, 0.0), kept / kept.sum().clamp(min=1)
    bias = bias if biased.any() else None
    return Weighted(positions, factor, pull, share, bias, bool(negative.any()))


def weighted_values(v: Tensor, rows: Rows, words: Weighted, axis: int) -> Tensor:
    """A copy of v with the words of some rows scaled. v: (B, …), ``axis`` > 0 holds the keys.

    A negative c as c v + (1 - c) m, which is m + c (v - m).
    """
    own = v[rows]
    part = own.index_select(axis, words.positions)
    new = _along(words.factor, axis, part) * part
    if words.negative:
        share = _along(words.share, axis, part, torch.promote_types(v.dtype, torch.float32))
        mean = (share * part).sum(dim=axis, keepdim=True).to(v.dtype)
        new = torch.addcmul(new, _along(words.pull, axis, part), mean)
    return with_rows(v, rows, own.index_copy(axis, words.positions, new))


def score_bias(words: Weighted, length: int) -> Tensor:
    """What is added to the scores of ``length`` keys, (length,)."""
    assert words.bias is not None
    return words.bias.new_zeros(length).index_copy(0, words.positions, words.bias)


def biased_attention(
    attend: Attend, q: Tensor, k: Tensor, v: Tensor, words: Weighted, axis: int
) -> Tensor:
    """softmax(q kᵀ / √d + bias) v, from two fused attentions and without a mask.

    For attention functions that may take none; where one is taken, it is cheaper to add the bias.
    e^b is a factor on a key's share, so the numerator is attention over e^b v, and the denominator
    attention over e^b.
    """
    bias = score_bias(words, v.shape[axis])
    share = _along((bias - bias.max()).exp(), axis, v)
    return attend(q, k, share * v) / attend(q, k, share.expand_as(v).contiguous())


def _along(x: Tensor, axis: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """x (n,) to broadcast along one axis of ``like``, in its type if no other is named."""
    shape = [1] * like.ndim
    shape[axis] = len(x)
    return x.to(dtype or like.dtype).reshape(shape)
