"""A source kept from one run for the next edits of it, which then need not evaluate it.

Light: its latent before every model call, and where its words looked. Full: also what the edits
take from it inside the windows. Of a UNet these are the tokens that self-attention reads, and the
queries and keys of its cross-attention (keys cost little, and no layer's weights have to be known
again); of a transformer the queries and keys in which its image sees text or itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .attention import Source
from .schedule import Window

BLOCK_BYTES = 64 * 2**20


class Shelf:
    """Keeps copies of tensors in the CPU's memory; a CUDA device is not waited for.

    Page-locked memory comes in blocks, since small pieces of it are rounded up to powers of two.
    """

    def __init__(self) -> None:
        self._block = torch.empty(0, dtype=torch.uint8)

    def put(self, x: Tensor) -> Tensor:
        """A copy of x."""
        if not x.is_cuda:
            return x.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        size = x.numel() * x.element_size()
        room = -(-size // 64) * 64  # keeps every piece aligned
        if room > len(self._block):
            self._block = torch.empty(max(room, BLOCK_BYTES), dtype=torch.uint8, pin_memory=True)
        piece, self._block = self._block[:size], self._block[room:]
        copy = piece.view(x.dtype).view(x.shape)
        return copy.copy_(x.detach(), non_blocking=True)


def taken(x: Tensor, device: torch.device) -> Tensor:
    """A kept tensor on a device."""
    return x.to(device, non_blocking=True)


@dataclass(eq=False)
class KeptCall:
    """The sources in one model call of a run, one row a seed.

    x: the sampler's latent, (seeds, C, h, w). cross: queries (seeds, Q, C) and keys (seeds, T_s, C)
    by layer; tokens: (seeds, Q, C) by layer; joint: a transformer's queries, keys and masks with
    their positions, by attention call; maps: the sum over the coarse layers' maps,
    (seeds, h * w, T_s); None where they are not kept.
    """

    x: Tensor
    cross: dict[Hashable, Source] | None = None
    tokens: dict[Hashable, Tensor] | None = None
    joint: dict[Hashable, tuple] | None = None
    maps: Tensor | None = None


@dataclass(frozen=True, eq=False)
class KeptRun:
    """A finished run's sources. identity: what they depend on, by name. final: their end."""

    identity: dict[str, Any]
    calls: list[KeptCall]
    final: Tensor

    @property
    def bytes(self) -> int:
        """Memory of everything that is kept."""
        parts = (tensor for call in self.calls for tensor in _tensors(tuple(vars(call).values())))
        sizes = {id(tensor): tensor.numel() * tensor.element_size() for tensor in parts}
        return sum(sizes.values())  # what calls share counts once


def _tensors(part: Any) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, (dict, tuple)):
        for value in part.values() if isinstance(part, dict) else part:
            yield from _tensors(value)


def differences(kept: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The names of what a source depends on that has changed."""
    return [name for name in kept if kept[name] != now.get(name)]


@dataclass(eq=False)
class KeptSource:
    """P2P_SOURCE: what is to be kept of the source, and the run that was kept last.

    full: whether attention is kept as well, at steps inside the windows while it fits into
    ``budget`` bytes. refuses: whether a source that has changed is an error, rather than kept anew.
    tell: shows a sentence to the user.
    """

    full: bool
    cross_window: Window
    self_window: Window
    budget: int
    refuses: bool
    tell: Callable[[str], None]
    run: KeptRun | None = field(default=None)
