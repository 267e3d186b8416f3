"""Word weights inside a transformer, for one model call: an override of its attention calls."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....p2p_core.word_weights import Weighted, biased_attention, weighted, weighted_values
from ..families.record import Call, Layout
from ..families.trace import arguments, position_axis
from .plan import WeightPlan

OVERRIDE = "optimized_attention_override"


class Spot(NamedTuple):
    """One call's words among its keys, and its queries that are no image."""

    words: Weighted
    others: Tensor


class JointWeights:
    """An attention override that weighs words, around one that may be there already.

    rows: (R,) those of the weighted prompt among ``batch``. size: of the latent (h, w). offset:
    where the prompt's encoding begins in the text that the network reads. spots: what was made out
    for earlier calls of the run.
    """

    def __init__(
        self,
        plan: WeightPlan,
        layout: Layout,
        rows: Tensor,
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
        self.seen = 0
        self.reached: set[int] = set()

    def install(self, options: dict) -> None:
        """Take the override's place in a call's own options, keeping the one that is there."""
        self.previous = options.get(OVERRIDE)
        options[OVERRIDE] = self.attention

    def attention(
        self, func: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """The host's interface: its attention function and what that would be called with."""
        attend = func if self.previous is None else partial(self.previous, func)
        index, self.seen = self.seen, self.seen + 1
        number = self.numbers.get(index)
        if number is None or not self.plan.acts_in(number) or len(k) != self.batch:
            return attend(q, k, v, *args, **kwargs)
        self.reached.add(number)
        given = arguments(args, kwargs)
        return self._weighted(partial(_attend, attend, given), q, k, v, given, index)

    def _weighted(
        self, attend: Callable, q: Tensor, k: Tensor, v: Tensor, given: dict, index: int
    ) -> Tensor:
        by_head = bool(given.get("skip_reshape"))
        axis, query_axis = position_axis(v, by_head), position_axis(q, by_head)
        out_axis = 2 if given.get("skip_output_reshape") else 1
        lengths = q.shape[query_axis], k.shape[position_axis(k, by_head)]
        spot = self._spot(self.layout.calls[index], lengths, v.device)
        rows = self.rows.to(v.device)
        values = weighted_values(v, rows, spot.words, axis)
        part = partial(attend, rows=rows, batch=self.batch)
        if spot.words.bias is None:
            out = attend(q, k, values)
        else:
            out = biased_attention(part, q[rows], k[rows], values[rows], spot.words, axis)
            if len(rows) < len(q):
                out = attend(q, k, values).index_copy(0, rows, out)
        if self.plan.image_only and len(spot.others):
            others = q[rows].index_select(query_axis, spot.others)
            plain = part(others, k[rows], v[rows], queries=spot.others)
            for row, new in zip(rows.tolist(), plain, strict=True):
                out[row].index_copy_(out_axis - 1, spot.others, new)
        return out

    def _spot(self, call: Call, lengths: tuple[int, int], device: torch.device) -> Spot:
        """Made once for all calls of like runs and lengths."""
        key = (call.queries, call.keys, call.patch, lengths, self.size, self.offset, device)
        if key not in self.spots:
            self.spots[key] = self._found(call, lengths, device)
        return self.spots[key]

    def _found(self, call: Call, lengths: tuple[int, int], device: torch.device) -> Spot:
        queries = self.layout.queries(call, lengths[0], self.size)
        keys = self.layout.keys(call, lengths[1], self.size)
        here = self.are_words[keys.columns]
        words = weighted(keys.text[here], self.weights[keys.columns[here]], self.plan.scores)
        others = torch.ones(lengths[0], dtype=torch.bool)
        others[queries.image] = False
        return Spot(words.to(device), others.nonzero()[:, 0].to(device))


def _attend(
    attend: Callable,
    given: dict,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rows: Tensor | None = None,
    batch: int = 0,
    queries: Tensor | None = None,
) -> Tensor:
    """The call's attention, for some of its rows and queries, with their part of its mask."""
    mask = given.get("mask")
    if mask is not None and rows is not None:
        if mask.ndim > 2 and len(mask) == batch:
            mask = mask[rows]
        if queries is not None and mask.ndim > 1 and mask.shape[-2] > 1:
            mask = mask.index_select(-2, queries)
    rest = {name: value for name, value in given.items() if name not in ("heads", "mask")}
    return attend(q, k, v, given["heads"], mask=mask, **rest)
