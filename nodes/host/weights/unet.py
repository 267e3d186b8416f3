"""Word weights inside a UNet, for one model call: around whatever stands on its cross-attention."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import comfy.ldm.modules.attention as host_attention
from torch import Tensor

from ....p2p_core.attention import Rows, with_rows
from ....p2p_core.word_weights import Weighted, biased_attention, weighted, weighted_values
from ..families.unet import Layer
from .plan import WeightPlan

TOKENS = 1  # the axis of a UNet's keys and values


class UNetWeights:
    """One call's patches, and the blocks that they reached.

    rows: those of the weighted prompt among ``batch``. columns: of the prompt's encoding,
    before the host repeats it to the length of others in the batch. spots: what was made out for
    earlier calls of the run.
    """

    def __init__(
        self, plan: WeightPlan, layers: Sequence[Layer], rows: Rows, batch: int, columns: int,
        spots: dict[Hashable, Any],
    ) -> None:  # fmt: skip
        self.plan, self.layers, self.rows = plan, layers, rows
        self.batch, self.columns = batch, columns
        self.reached: dict[int, bool] = {}  # see UNetControl
        self.spots = spots

    def install(self, options: dict) -> None:
        """Put the patches into a call's own options, around those that are there already."""
        replace = dict(options.get("patches_replace", {}))
        previous = replace.get("attn2", {})
        ours = {
            layer: partial(self._attn2, number, previous.get(layer, previous.get(layer[:2])))
            for number, layer in enumerate(self.layers)
            if self.plan.acts_in(number)
        }
        replace["attn2"] = {**previous, **ours}
        options["patches_replace"] = replace

    def check(self) -> None:
        """Nothing: a UNet's blocks are known by name."""

    def _attn2(
        self, number: int, previous: Callable | None, q: Tensor, k: Tensor, v: Tensor, extra: dict
    ) -> Tensor:
        self.reached[number] = True
        if len(v) != self.batch:
            raise ValueError(
                f"Another node changed the rows of the model's cross-attention from {self.batch} "
                f"to {len(v)}, so the prompt with weights cannot be told from others there. Nodes "
                "for regional prompts (couple, attention masks) do so: use ConditioningSetMask."
            )
        words, rows = self._words_among(v), self.rows
        v = weighted_values(v, rows, words, TOKENS)
        attend = partial(_host_attention, extra)
        out = attend(q, k, v) if previous is None else previous(q, k, v, extra)
        if words.bias is None:
            return out
        part = q[rows], k[rows], v[rows]
        new = biased_attention(attend, *part, words, TOKENS)
        if previous is not None:  # keep what it adds to plain attention
            new = out[rows] + new - attend(*part)
        return with_rows(out, rows, new)

    def _words_among(self, v: Tensor) -> Weighted:
        """The words among the keys: a repeated prompt's, and what others appended."""
        length = v.shape[TOKENS]
        key = length, self.columns, v.device, v.dtype
        if key not in self.spots:
            weights, words = self.plan.words.spread(self.columns)
            repeats = max(length // self.columns, 1)
            weights, words = weights.repeat(repeats)[:length], words.repeat(repeats)[:length]
            positions = words.nonzero()[:, 0]
            made = weighted(positions, weights[positions], self.plan.scores)
            self.spots[key] = made.to(v.device, v.dtype)
        return self.spots[key]


def _host_attention(extra: dict, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The attention function that the host would have used in this layer. (B, Q, heads * C)"""
    return host_attention.optimized_attention(
        q, k, v, extra["n_heads"], attn_precision=extra["attn_precision"], transformer_options=extra
    )
