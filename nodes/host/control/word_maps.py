"""Where a transformer's image looks, read off its own fused attention.

Only for the words' columns, at some of the image positions, in some of the middle layers: values
that are 1 at a word and 0 elsewhere make the output the word's mass (see word_mass).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....p2p_core.attention import Rows, as_rows
from ....p2p_core.joint_attention import at, word_mass
from ....p2p_core.maps import MapStore
from ..families.record import Call, Layout, Positions
from ..kept.joint import Kept
from .host_attention import HostAttention, mask_part
from .modes import Ask, Columns

LAYERS = 5  # as many as the published choices (arXiv:2508.07519)


class MappedRow(NamedTuple):
    """A row of the batch whose maps are wanted, and the row of the latent that it belongs to.

    columns: where its prompt stands. edit: its number among the call's asks, None for a source.
    source: which of the call's sources it follows.
    """

    row: int
    latent_row: int
    columns: Columns
    edit: int | None
    source: int


def map_calls(layout: Layout) -> frozenset[int]:
    """Up to five calls that read text, spread over the middle third of the depth."""
    reading = layout.reading
    first, last = len(reading) // 3, max(len(reading) - len(reading) // 3, 1)
    middle = reading[first:last]
    count = min(LAYERS, len(middle))
    return frozenset(middle[i * len(middle) // count] for i in range(count))


class WordMaps:
    """Adds the maps of one model call's rows to a store, (rows of the latent, h * w, T).

    source: where its prompt stands. words: the prompts' columns that are followed, of all prompts
    together. step: of the run. memory: of the run, for positions. total: the sum of what was added.
    """

    def __init__(
        self, store: MapStore, layout: Layout, size: tuple[int, int], rows: Sequence[MappedRow],
        asks: Sequence[Ask], source: Columns, words: Sequence[int], step: int,
        shape: tuple[int, int], memory: dict[tuple, Any],
    ) -> None:  # fmt: skip
        self.store, self.layout, self.size = store, layout, size
        self.rows, self.asks, self.source = rows, asks, source
        self.words, self.step, self.shape, self.memory = list(words), step, shape, memory
        self.total: Tensor | None = None
        self._calls = map_calls(layout)

    def wants(self, call: Call) -> bool:
        """Whether maps are collected in a call."""
        return call.index in self._calls

    def collect(
        self, call: Call, host: HostAttention, here: Kept, v: Tensor, source: Kept,
        joint: Sequence[int],
    ) -> None:  # fmt: skip
        """Add a call's maps, with its edits. v: the values, whose shape alone counts."""
        device, count = here.q.device, self.shape[1]
        places = len(self._places(call, here.queries, device))
        maps = torch.zeros(self.shape[0], places, count, device=device)
        for row in self.rows:
            own = self._row(call, host, here, v, row.row, row.columns)
            if row.edit is not None and row.edit in joint:
                theirs = self._row(call, host, source, v, row.source, self.source)
                own = _edited(own, theirs, self.asks[row.edit], self.source, row.columns)
            maps[row.latent_row] += own
        self.total = maps if self.total is None else self.total + maps
        self.store.add(self.step, maps)

    def _row(
        self, call: Call, host: HostAttention, side: Kept, v: Tensor, row: int, columns: Columns
    ) -> Tensor:
        """The map of one row, (positions, T), 0 in columns that are no words."""
        device = side.q.device
        places = self._places(call, side.queries, device)
        words = [column for column in self.words if column < columns.count]
        found = self._key_positions(side.keys, columns.first, words, device)
        chosen = slice(row, row + 1)
        mask = mask_part(mask_part(side.mask, chosen, None), None, places)
        q, k = at(side.q[chosen], places), side.k[chosen]
        like = v[:1].new_empty(1, *v.shape[1:-2], k.shape[-2], v.shape[-1])
        width = q.shape[-1] if q.ndim == 4 else q.shape[-1] // host.heads
        value_heads = v.shape[-1] // width
        out = torch.zeros(len(places), self.shape[1], device=device)
        for start in range(0, len(words), width):
            part = slice(start, start + width)
            attend = host.flat().with_mask(mask)
            mass = word_mass(attend, q, k, like, found[part], host.heads, value_heads)
            out[:, words[part]] = mass[0]
        return out

    def _key_positions(
        self, keys: Positions, first: int, words: Sequence[int], device: torch.device
    ) -> list[Rows]:
        """The key positions of each word's column; none for one that the network does not read."""
        key = "words", id(keys), first, tuple(words), device
        if key not in self.memory:
            found = [keys.text[keys.columns == column + first].tolist() for column in words]
            self.memory[key] = keys, [as_rows(positions, device) for positions in found]
        return self.memory[key][1]

    def _places(self, call: Call, queries: Positions, device: torch.device) -> Tensor:
        """The query positions of the store's grid: the middles of its cells."""
        grid = self.layout.grid(call, self.size)
        key = "cells", id(queries), grid, device
        if key not in self.memory:
            rows, columns = (
                ((torch.arange(n) + 0.5) * have / n).long()
                for n, have in zip(self.store.size, grid, strict=True)
            )
            cells = queries.image[(rows[:, None] * grid[1] + columns).flatten()].to(device)
            self.memory[key] = queries, cells
        return self.memory[key][1]


def _edited(own: Tensor, source: Tensor, ask: Ask, there: Columns, here: Columns) -> Tensor:
    """M_s S + M_t diag(w) over the prompts' own columns, (positions, T)."""
    assert ask.source_map is not None and ask.target_weight is not None
    rows, columns = (slice(c.first, c.first + c.count) for c in (there, here))
    mapping = ask.source_map[rows, columns].to(own)
    new = own.clone()
    new[:, : here.count] = source[:, : there.count] @ mapping + own[
        :, : here.count
    ] * ask.target_weight[columns].to(own)
    return new
