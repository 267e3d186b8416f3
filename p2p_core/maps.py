"""Where words look: cross-attention maps at one coarse resolution, averaged over a run.

Only here are maps made explicit, and only in the layers of one coarse resolution: a local blend and
the pictures of attention need them, the edit itself does not (see attention.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from .attention import CrossEdit, with_rows
from .schedule import WHOLE_RUN, Window


def coarse_level(latent_size: tuple[int, int], levels: Sequence[int], share: int = 16) -> int:
    """The UNet level whose attention resolution is nearest to max(256, latent tokens / share).

    levels: how often each available level halves the latent. 16x16 for SD1.5 at 512 px.
    """
    wanted = max(256, latent_size[0] * latent_size[1] / share)

    def distance(level: int) -> float:
        height, width = size_at(latent_size, level)
        return abs(height * width - wanted)

    return min(sorted(set(levels), reverse=True), key=distance)


def size_at(latent_size: tuple[int, int], level: int) -> tuple[int, int]:
    """(h, w) after ``level`` stride-2 convolutions with padding 1: halves rounded up."""
    height, width = latent_size
    for _ in range(level):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def attention_map(q: Tensor, k: Tensor, heads: int, lengths: Sequence[int] | None = None) -> Tensor:
    """softmax(q kᵀ / √d), averaged over the heads, in float32.

    q: (B, Q, heads * d); k: (B, T, heads * d). lengths: how many columns each row sees, None for
    all; a map is 0 in the others. Returns (B, Q, T).
    """
    q, k = (rearrange(x.float(), "b n (h d) -> b h n d", h=heads) for x in (q, k))
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if lengths is not None:
        columns = torch.arange(k.shape[2], device=k.device)
        seen = columns < torch.tensor(lengths, device=k.device)[:, None]
        scores = scores.masked_fill(~seen[:, None, None], -torch.inf)
    return scores.softmax(dim=-1).mean(dim=1)


def edited_map(maps: Tensor, source: Tensor, edit: CrossEdit) -> Tensor:
    """The maps that the edit puts in place: M_new = M_s · S + M_t · diag(w) in its rows. (B, Q, T)

    maps: (B, Q, T); source: M_s of every edited row, (E, Q, T_s). Being linear, the edit commutes
    with the average over heads.
    """
    new = source @ edit.source_map + maps[edit.edited] * edit.target_weight[:, None]
    return with_rows(maps, edit.edited, new)


class MapStore:
    """Sums of one run's coarse maps, (rows, h * w, T), in a bounded number of bins of steps.

    The sum over the whole run is kept beside them, since a local blend asks for it at every step.
    Memory: (bins + 1) * rows * h * w * T * 4 bytes.
    """

    def __init__(self, size: tuple[int, int], steps: int, bins: int) -> None:
        self.size = size
        self.steps = steps
        self.bins = min(bins, steps)
        self._sums: dict[int, Tensor] = {}
        self._total: Tensor | None = None

    def add(self, step: int, maps: Tensor) -> None:
        """Add one layer's maps, (rows, h * w, T), at a step."""
        index = step * self.bins // self.steps
        self._sums[index] = self._sums[index] + maps if index in self._sums else maps
        self._total = maps if self._total is None else self._total + maps

    def words(
        self, rows: Sequence[int], columns: Sequence[int], window: Window = WHOLE_RUN
    ) -> Tensor:
        """Attention of some rows to some columns, summed over the window's steps: (rows, h, w).

        Unnormalised. Raises ValueError if the window holds no recorded step.
        """
        sums = [value for i, value in self._sums.items() if window.holds(i, self.bins)]
        if self._total is not None and window == WHOLE_RUN:
            sums = [self._total]
        if not sums:
            raise ValueError(
                f"No attention was recorded between {window.start:g} and {window.end:g} of the "
                "steps. Choose a wider range."
            )
        chosen = [value[list(rows)][..., list(columns)].float().sum(dim=-1) for value in sums]
        return torch.stack(chosen).sum(dim=0).unflatten(-1, self.size)

    def kept(self) -> MapStore:
        """The same sums for later: on the CPU, in half precision, scaled so that they fit it."""
        kept = MapStore(self.size, self.steps, self.bins)
        if self._total is None:
            return kept
        peak = self._total.abs().max()
        kept._sums = {i: (value / peak).half().cpu() for i, value in self._sums.items()}
        kept._total = (self._total / peak).half().cpu()
        return kept
