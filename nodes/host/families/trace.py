"""Watching a forward pass whose attention answers nothing but zeros.

No position hears of another then, so a key or a query changes only if its own input does, at every
depth and behind text refiners.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .following import TrialBlocks

ARGUMENTS = ("heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape")
SKETCH = 16


class Watched(NamedTuple):
    """Sketches of one call's queries and keys, (B, Q, 16) and (B, L, 16).

    block: that makes it. widths: of a query and of a key, all heads together.
    """

    queries: Tensor
    keys: Tensor
    block: Hashable
    widths: tuple[int, int]


class Trace:
    """An optimized_attention_override that answers zeros and keeps a sketch of what it saw.

    rows: of the batch. calls: None for one with other rows.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.blocks = TrialBlocks()
        self.calls: list[Watched | None] = []

    def __call__(
        self, func: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        given = arguments(args, kwargs)
        same = len(q) == len(k) == self.rows
        self.calls.append(self._watched(q, k, given) if same else None)
        return _zeros(q, v, given)

    def _watched(self, q: Tensor, k: Tensor, given: dict) -> Watched:
        q, k = (by_position(x, bool(given.get("skip_reshape"))) for x in (q, k))
        return Watched(_sketch(q), _sketch(k), self.blocks.current, (q.shape[-1], k.shape[-1]))


def arguments(args: tuple, kwargs: dict) -> dict[str, Any]:
    """The attention function's arguments behind q, k and v, by name."""
    return {**dict(zip(ARGUMENTS, args, strict=False)), **kwargs}


def position_axis(x: Tensor, by_head: bool) -> int:
    """Which axis of queries, keys or values holds the positions, see by_position."""
    return 2 if x.ndim == 4 and by_head else 1


def by_position(x: Tensor, by_head: bool) -> Tensor:
    """(B, L, C) of queries, keys or values in any of the host's layouts.

    by_head: (B, H, L, D); else (B, L, H * D) or (B, L, H, D).
    """
    if x.ndim == 4:
        return (x.transpose(1, 2) if by_head else x).flatten(2)
    return x


def _sketch(x: Tensor) -> Tensor:
    """A projection of every position's vector, (B, L, C), to a few channels, in float32."""
    x = x.float()
    generator = torch.Generator().manual_seed(x.shape[-1])
    plane = torch.randn(x.shape[-1], SKETCH, generator=generator) / SKETCH**0.5
    return x @ plane.to(x.device)


def _zeros(q: Tensor, v: Tensor, given: dict) -> Tensor:
    heads = given["heads"]
    by_head = bool(given.get("skip_reshape"))
    rows, positions = len(q), q.shape[2] if by_head else q.shape[1]
    width = v.shape[-1] if v.ndim == 4 else q.shape[-1] // heads
    if given.get("skip_output_reshape"):
        return q.new_zeros(rows, heads, positions, width)
    return q.new_zeros(rows, positions, heads * width)
