"""The self-check of a layout: reading another row's words must give that row's picture.

One forward pass of two rows from the same noise: a prompt, and another prompt. The second row reads
the first row's keys and values wherever no image stands, since padding and registers relay text
too. If the layout is right and no attention is hidden, it becomes the first row. Where it differs
more than is usual, a pass of two equal rows tells what rounding alone does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .inputs import Inputs
from .probe import replaced_text
from .record import Layout
from .refusals import not_finite, uncertain, unconfirmed
from .trace import arguments, position_axis

GROWN = (10, 14)  # quarters of the probe's edge: another shape, past a border of 32 positions
TOLERANCE = {torch.float32: 1e-5}  # of what the model adds to the latent
LOW_PRECISION = 5e-4


class Redirected:
    """An override under which row 1 reads row 0 at all positions without image."""

    def __init__(self, layout: Layout, size: tuple[int, int], family: str) -> None:
        self.layout = layout
        self.size = size
        self.family = family
        self.seen = 0

    def __call__(
        self, func: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        index, self.seen = self.seen, self.seen + 1
        call = self.layout.calls[index] if index < len(self.layout.calls) else None
        if call is not None and call.reads_text and len(q) == len(k) == 2:
            by_head = bool(arguments(args, kwargs).get("skip_reshape"))
            length = k.shape[position_axis(k, by_head)]
            try:
                image = self.layout.keys(call, length, self.size).image
            except ValueError as error:
                seen = "the number of positions does not follow the latent's size"
                raise uncertain(self.family, index, seen) from error
            words = torch.ones(length, dtype=torch.bool)
            words[image] = False
            k, v = (_redirected(x, words.to(x.device), by_head) for x in (k, v))
        return func(q, k, v, *args, **kwargs)


def _redirected(x: Tensor, words: Tensor, by_head: bool) -> Tensor:
    x = x.clone()
    rows = x.movedim(position_axis(x, by_head), 1)
    rows[1, words] = rows[0, words]
    return x


def check(
    apply: Callable[..., Tensor], layout: Layout, inputs: Inputs, options: dict, family: str
) -> float:
    """The difference that remains, relative to what the model adds to the latent; 0 when exact.

    inputs: one row. Raises ValueError where it is more than rounding.
    """
    edge = layout.size[0] // 4
    size = (GROWN[0] * edge, GROWN[1] * edge)
    rows = inputs.sized(size).rows([0, 0])
    generator = torch.Generator().manual_seed(2)
    whole = torch.ones(rows.text.shape[1], dtype=torch.bool)
    other = replaced_text(inputs.text, whole, generator)

    def difference(second: Tensor) -> float:
        """Of the two rows under two texts, relative to what the model adds to the latent."""
        attention = Redirected(layout, size, family)
        text = torch.cat([rows.text[:1], second])
        out = replace(rows, text=text).run(apply, options, attention)
        if attention.seen != len(layout.calls):
            seen = "the number of calls depends on the latent's size"
            raise uncertain(family, attention.seen, seen)
        if not bool(out.isfinite().all()):
            raise not_finite(family, "the picture")
        added = (out[0].float() - rows.x[0].float()).norm().clamp(min=1e-12)
        return float((out[1] - out[0]).float().norm() / added)

    found = difference(other)
    if found > TOLERANCE.get(rows.x.dtype, LOW_PRECISION):
        floor = difference(rows.text[1:])
        if found > 10 * floor:
            raise unconfirmed(family, found, floor)
    return found
