"""What one model call asks of the attention layers: which rows, which edits, at which step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ....p2p_core.attention import CrossEdit, Rows, Source, as_rows
from ....p2p_core.edits import PromptEdit, StepEdit
from ....p2p_core.schedule import Window
from ..batch import BatchRows


class Pairs(NamedTuple):
    """Edited rows and the rows of their sources in a batch, E each."""

    source: Rows
    edited: Rows


class Call(NamedTuple):
    """One model call. Tensors lie on its device.

    step: of the run. rows: of the batch. columns: of the texts as the network gets them. lengths:
    of each row's own text, None if all fill the columns. controlled: positions of our rows, and
    latent_rows: the rows of the latent that they belong to. pairs, source_columns: where the
    edits' sources are, and among: where pairs are among the controlled. kept: whether sources are
    not in the batch but kept, one a seed, and pairs' sources count those. own_sources: the source
    rows in the batch. cross, self_pairs: None
    where attention stays as it is.
    """

    step: int
    rows: int
    columns: int
    lengths: tuple[int, ...] | None
    controlled: Rows
    latent_rows: tuple[int, ...]
    pairs: Pairs
    among: Pairs
    kept: bool
    own_sources: Rows
    source_columns: int
    cross: CrossEdit | None
    self_pairs: Pairs | None

    @property
    def idle(self) -> bool:
        """Whether every layer stays as the host has it."""
        return self.cross is None and self.self_pairs is None and self.lengths is None

    def source(self, q: Tensor, k: Tensor) -> Source:
        """The sources' queries and keys, one for every edited row. q, k: of where they are."""
        rows = self.pairs.source
        return Source(q[rows], k[rows, : self.source_columns])


class Calls:
    """Works out the calls of one run; the last one is kept, for steps at which nothing changes."""

    def __init__(self, edits: Sequence[PromptEdit], steps: int, source_columns: int) -> None:
        self.edits, self.steps, self.source_columns = edits, steps, source_columns
        self._last: dict[tuple, Call] = {}
        self._open: dict[int, tuple[frozenset[Window], ...]] = {}
        self._states: dict[tuple[frozenset[Window], ...], list[StepEdit]] = {}

    def call(
        self, step: int, rows: BatchRows, ours: Set[int], device: torch.device, kept: bool = False
    ) -> Call:
        """The call of these rows at a step; ours: numbers of the conditionings that are edited.

        kept: whether sources are kept. Raises ValueError if an edited row comes without its source.
        """
        key = (self._open_at(step), rows.key, frozenset(ours), device, kept)
        if key not in self._last:
            self._last = {key: self._work_out(step, rows, ours, device, kept)}
        return self._last[key]._replace(step=step)

    def ever_edits(self) -> bool:
        """Whether any step of the run changes cross-attention."""
        return any(state.cross_attention for i in range(self.steps) for state in self._at(i))

    def couples(self, step: int) -> bool:
        """Whether any edit looks at its source at a step."""
        return any(self.wants(step))

    def wants(self, step: int) -> tuple[bool, bool]:
        """Whether any edit looks at its source's cross- and at its self-attention at a step."""
        states = self._at(step)
        cross = any(state.cross_attention for state in states)
        return cross, any(state.self_attention for state in states)

    def _at(self, step: int) -> list[StepEdit]:
        """What every edit does at a step."""
        windows = self._open_at(step)
        if windows not in self._states:
            self._states[windows] = [edit.at(step, self.steps) for edit in self.edits]
        return self._states[windows]

    def _open_at(self, step: int) -> tuple[frozenset[Window], ...]:
        """The windows of every edit that hold at a step."""
        if step not in self._open:
            self._open[step] = tuple(edit.open_windows(step, self.steps) for edit in self.edits)
        return self._open[step]

    def _work_out(
        self, step: int, rows: BatchRows, ours: Set[int], device: torch.device, kept: bool
    ) -> Call:
        controlled, lengths = rows.of(ours), rows.columns
        columns = max(lengths)
        coupled = controlled if self.couples(step) else controlled[:0]
        group = 1 + len(self.edits)
        pairs, numbers = (pair_with_kept if kept else pair_up)(rows[coupled], coupled, group)
        states = [self._at(step)[number] for number in numbers]
        owned = rows[controlled].latent_rows
        place = {row: i for i, row in enumerate(controlled.tolist())}
        sources = [pair.source if kept else place[pair.source] for pair in pairs]
        among = [Pair(own, place[pair.edited]) for own, pair in zip(sources, pairs, strict=True)]
        injected = [p for p, state in zip(pairs, states, strict=True) if state.self_attention]
        on_device = _pairs(pairs, device)
        return Call(
            step=step,
            rows=len(rows),
            columns=columns,
            lengths=None if set(lengths) == {columns} else tuple(lengths),
            controlled=as_rows(controlled.tolist(), device),
            latent_rows=tuple(owned),
            pairs=on_device,
            among=_pairs(among, device),
            kept=kept,
            own_sources=as_rows(
                [
                    row
                    for row, own in zip(controlled.tolist(), owned, strict=True)
                    if not own % group
                ],
                device,
            ),
            source_columns=self.source_columns,
            cross=_cross_edit(on_device.edited, states, columns, device),
            self_pairs=_pairs(injected, device) if injected else None,
        )


class Pair(NamedTuple):
    """An edited row and its source's, by their positions."""

    source: int
    edited: int


def _pairs(pairs: Sequence[Pair], device: torch.device) -> Pairs:
    sides = zip(*pairs, strict=True) if pairs else ((), ())
    return Pairs(*(as_rows(side, device) for side in sides))


def pair_up(rows: BatchRows, positions: Tensor, group: int) -> tuple[list[Pair], list[int]]:
    """Every edited row with its source, and the number of its edit (from 0).

    rows: the controlled ones; positions: theirs in the batch; group: rows of one seed. Where a row
    is there several times, as for tiles, the first goes with the first. Raises ValueError if source
    and edit are not evaluated together.
    """
    found: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for (conditioning, row, _), position in zip(
        rows.labels.tolist(), positions.tolist(), strict=True
    ):
        found[conditioning, row // group, row % group].append(position)
    pairs: list[Pair] = []
    numbers: list[int] = []
    for (conditioning, seed, member), places in sorted(found.items()):
        if member == 0:
            continue
        sources = found.get((conditioning, seed, 0), [])
        if len(sources) != len(places):
            raise ValueError(
                "Source and edit were not evaluated in the same model call, but the edit looks at "
                "the source's attention. Another node splits the batch: remove it."
            )
        pairs += map(Pair, sources, places)
        numbers += [member - 1] * len(places)
    return pairs, numbers


def pair_with_kept(rows: BatchRows, positions: Tensor, group: int) -> tuple[list[Pair], list[int]]:
    """The same where sources are kept, one a seed: their numbers stand for rows."""
    latent_rows = rows.latent_rows
    pairs = [
        Pair(row // group, position)
        for row, position in zip(latent_rows, positions.tolist(), strict=True)
    ]
    return pairs, [row % group - 1 for row in latent_rows]


def _cross_edit(
    edited: Rows, states: Sequence[StepEdit], columns: int, device: torch.device
) -> CrossEdit | None:
    """S and w of all edited rows, over the columns of the call; None if none is changed."""
    if not any(state.cross_attention for state in states):
        return None
    short = [columns - len(state.target_weight) for state in states]
    maps = [F.pad(s.source_map, (0, more)) for s, more in zip(states, short, strict=True)]
    weights = [
        F.pad(s.target_weight, (0, more), value=1.0) for s, more in zip(states, short, strict=True)
    ]
    source_map, weight = torch.stack(maps), torch.stack(weights)
    alone = not weight.any()
    return CrossEdit(edited, source_map.to(device), weight.to(device), alone)
