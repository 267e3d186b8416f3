"""Word weights inside a transformer, for one model call: an override of its attention calls."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....p2p_core.attention import Rows, count, with_rows
from ....p2p_core.word_weights import (
    Weighted,
    biased_attention,
    score_bias,
    weighted,
    weighted_values,
)
from ..compiled import uncompiled
from ..families.following import Follower
from ..families.record import Call, Layout
from ..families.trace import arguments, position_axis
from .plan import WeightPlan

OVERRIDE = "optimized_attention_override"


class Spot(NamedTuple):
    """One call's words among its keys, and its queries: those of the image, and the others."""

    words: Weighted
    image: Tensor
    others: Tensor


class JointWeights:
    """An attention override that weighs words, around one that may be there already.

    rows: those of the weighted prompt among ``batch``. size: of the latent (h, w). offset:
    where the prompt's encoding begins in the text that the network reads. spots: what was made out
    for earlier calls of the run.
    """

    def __init__(
        self,
        plan: WeightPlan,
        layout: Layout,
        rows: Rows,
        batch: int,
        size: tuple[int, int],
        offset: int,
        spots: dict[Hashable, Spot],
    ) -> None:
        self.plan, self.layout, self.rows, self.batch = plan, layout, rows, batch
        self.size, self.offset, self.spots = size, offset, spots
        self.weights, self.are_words = plan.words.spread(layout.tokens, offset)
        self.numbers = {index: number for number, index in enumerate(layout.reading)}
        self.previous: Callable | None = None
        self.follower = Follower(layout)
        self.reached: dict[int, bool] = {}  # see UNetControl

    def install(self, options: dict) -> None:
        """Take the override's place in a call's own options, keeping the one that is there."""
        self.follower.watch(options)
        self.previous = options.get(OVERRIDE)
        options[OVERRIDE] = uncompiled(self.attention)

    def check(self) -> None:
        """ValueError if calls were missing, so that others may have been taken for them."""
        self.follower.check()

    def attention(
        self, func: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """The host's interface: its attention function and what that would be called with."""
        attend = func if self.previous is None else partial(self.previous, func)
        index = self.follower.next().index
        number = self.numbers.get(index)
        if number is None or not self.plan.acts_in(number):
            return attend(q, k, v, *args, **kwargs)
        if len(k) != self.batch:
            raise ValueError(
                f"Another node changed the rows of attention call {index} from {self.batch} to "
                f"{len(k)}, so the prompt with weights cannot be told from others there. Remove "
                "that node."
            )
        self.reached[number] = True
        given = arguments(args, kwargs)
        return self._weighted(partial(_attend, attend, given), q, k, v, given, index)

    def _weighted(
        self, attend: Callable, q: Tensor, k: Tensor, v: Tensor, given: dict, index: int
    ) -> Tensor:
        by_head = bool(given.get("skip_reshape"))
        axis, query_axis = position_axis(v, by_head), position_axis(q, by_head)
        lengths = q.shape[query_axis], k.shape[position_axis(k, by_head)]
        spot = self._spot(self.layout.calls[index], lengths, v)
        values = weighted_values(v, self.rows, spot.words, axis)
        attend = partial(attend, batch=self.batch)
        if not self.plan.image_only or not len(spot.others):
            return self._seen(attend, q, k, values, spot.words, axis)
        out_axis = 2 if given.get("skip_output_reshape") else 1
        of_image, of_others = (partial(attend, queries=part) for part in (spot.image, spot.others))
        image, others = (q.index_select(query_axis, part) for part in (spot.image, spot.others))
        seen = self._seen(of_image, image, k, values, spot.words, axis)
        size = list(seen.shape)
        size[out_axis] = lengths[0]
        out = seen.new_empty(size).index_copy(out_axis, spot.image, seen)
        return out.index_copy(out_axis, spot.others, of_others(others, k, v))

    def _seen(
        self, attend: Callable, q: Tensor, k: Tensor, v: Tensor, words: Weighted, axis: int
    ) -> Tensor:
        """Attention whose scores are weighed too, if they are to be."""
        if words.bias is None:
            return attend(q, k, v)
        rows = self.rows
        if self.previous is not None:  # another pack's attention, which may take no mask
            part = partial(attend, rows=rows)
            out = biased_attention(part, q[rows], k[rows], v[rows], words, axis)
            return out if count(rows) == len(q) else with_rows(attend(q, k, v), rows, out)
        bias = score_bias(words, v.shape[axis]).to(q.dtype)
        every = bias.new_zeros(len(q), 1, 1, len(bias))
        every[rows] = bias
        return attend(q, k, v, bias=every)

    def _spot(self, call: Call, lengths: tuple[int, int], v: Tensor) -> Spot:
        """Made once for all calls of like runs and lengths."""
        runs = call.queries, call.keys, call.patch, lengths
        key = (*runs, self.size, self.offset, v.device, v.dtype)
        if key not in self.spots:
            self.spots[key] = self._found(call, lengths, v)
        return self.spots[key]

    def _found(self, call: Call, lengths: tuple[int, int], v: Tensor) -> Spot:
        queries = self.layout.queries(call, lengths[0], self.size)
        keys = self.layout.keys(call, lengths[1], self.size)
        here = self.are_words[keys.columns]
        words = weighted(keys.text[here], self.weights[keys.columns[here]], self.plan.scores)
        others = torch.ones(lengths[0], dtype=torch.bool)
        others[queries.image] = False
        parts = queries.image, others.nonzero()[:, 0]
        return Spot(words.to(v.device, v.dtype), *(part.to(v.device) for part in parts))


def _attend(
    attend: Callable,
    given: dict,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rows: Rows | None = None,
    batch: int = 0,
    queries: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """The call's attention, for some of its rows and queries, with their part of its mask.

    bias: (B, 1, 1, L), added to all scores.
    """
    mask = given.get("mask")
    if mask is not None:
        if rows is not None and mask.ndim > 2 and len(mask) == batch:
            mask = mask[rows]
        if queries is not None and mask.ndim > 1 and mask.shape[-2] > 1:
            mask = mask.index_select(-2, queries)
    if bias is not None:
        mask = bias if mask is None else _as_bias(mask, bias.dtype) + bias
    rest = {name: value for name, value in given.items() if name not in ("heads", "mask")}
    return attend(q, k, v, given["heads"], mask=mask, **rest)


def _as_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what it adds to the scores, (B or 1, H or 1, Q or 1, L), as the host reads it."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, -torch.inf)
    if mask.ndim == 2:
        mask = mask[None]
    return (mask[:, None] if mask.ndim == 3 else mask).to(dtype)
