"""One attention call of the host, repeated with other rows, queries, keys and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ....p2p_core.attention import Rows
from ....p2p_core.joint_attention import at
from ..families.trace import arguments

MASK = 1  # where it stands among the arguments behind q, k and v


class HostAttention(NamedTuple):
    """The host's function with its arguments behind q, k and v, inside another pack's override.

    previous: that override, if there is one.
    """

    func: Callable
    previous: Callable | None
    args: tuple
    kwargs: Mapping[str, Any]

    @property
    def given(self) -> dict[str, Any]:
        return arguments(self.args, dict(self.kwargs))

    @property
    def by_head(self) -> bool:
        """Whether heads have an axis of their own: (B, H, L, D)."""
        return bool(self.given.get("skip_reshape"))

    @property
    def heads(self) -> int:
        return self.given["heads"]

    @property
    def mask(self) -> Tensor | None:
        return self.given.get("mask")

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As the host called it."""
        if self.previous is None:
            return self.func(q, k, v, *self.args, **self.kwargs)
        return self.previous(self.func, q, k, v, *self.args, **self.kwargs)

    def flat(self) -> HostAttention:
        """The same, with heads side by side in what it returns: (B, Q, H * D)."""
        kwargs = {k: v for k, v in self.kwargs.items() if k != "skip_output_reshape"}
        return self._replace(kwargs=kwargs)

    def with_mask(self, mask: Tensor | None) -> HostAttention:
        """The same with another mask."""
        if self.mask is None and mask is None:
            return self
        if len(self.args) > MASK:
            return self._replace(args=(*self.args[:MASK], mask, *self.args[MASK + 1 :]))
        return self._replace(kwargs={**self.kwargs, "mask": mask})


def mask_part(mask: Tensor | None, rows: Rows | None, queries: Rows | None) -> Tensor | None:
    """A mask (…, Q or 1, L) for some rows of the batch and some queries."""
    if mask is None:
        return None
    if rows is not None and mask.ndim > 2 and len(mask) > 1:
        mask = mask[rows]
    if queries is not None and mask.shape[-2] > 1:
        mask = at(mask, queries)
    return mask
