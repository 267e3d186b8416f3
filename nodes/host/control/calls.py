"""What one model call asks of the attention layers: which rows, which edits, at which step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ....p2p_core.attention import CrossEdit, Source
from ....p2p_core.edits import PromptEdit, StepEdit
from ..batch import BatchRows


class Pairs(NamedTuple):
    """Edited rows and the rows of their sources in a batch, (E,) each."""

    source: Tensor
    edited: Tensor


class Call(NamedTuple):
    """One model call. Tensors lie on its device.

    step: of the run. rows: of the batch. columns: of the texts as the network gets them. lengths:
    of each row's own text, None if all fill the columns. controlled: positions of our rows, and
    latent_rows: the rows of the latent that they belong to. pairs, source_columns: where the
    edits' sources are. cross, self_pairs: None where attention stays as it is.
    """

    step: int
    rows: int
    columns: int
    lengths: tuple[int, ...] | None
    controlled: Tensor
    latent_rows: tuple[int, ...]
    pairs: Pairs
    source_columns: int
    cross: CrossEdit | None
    self_pairs: Pairs | None

    @property
    def idle(self) -> bool:
        """Whether every layer stays as the host has it."""
        return self.cross is None and self.self_pairs is None and self.lengths is None

    def source(self, q: Tensor, k: Tensor) -> Source:
        """The sources' queries and keys, one for every edited row: they are rows of the batch."""
        rows = self.pairs.source
        return Source(q[rows], k[rows, : self.source_columns])


class Calls:
    """Works out the calls of one run; the last one is kept, for samplers that stay on a step."""

    def __init__(self, edits: Sequence[PromptEdit], steps: int, source_columns: int) -> None:
        self.edits, self.steps, self.source_columns = edits, steps, source_columns
        self._last: dict[tuple, Call] = {}
        self._states: dict[int, list[StepEdit]] = {}

    def call(self, step: int, rows: BatchRows, ours: Set[int], device: torch.device) -> Call:
        """The call of these rows at a step; ours: numbers of the conditionings that are edited.

        Raises ValueError if an edited row comes without its source.
        """
        key = (step, rows.key, frozenset(ours), device)
        if key not in self._last:
            self._last = {key: self._work_out(step, rows, ours, device)}
        return self._last[key]

    def ever_edits(self) -> bool:
        """Whether any step of the run changes cross-attention."""
        return any(state.cross_attention for i in range(self.steps) for state in self._at(i))

    def couples(self, step: int) -> bool:
        """Whether any edit looks at its source at a step."""
        return any(state.cross_attention or state.self_attention for state in self._at(step))

    def _at(self, step: int) -> list[StepEdit]:
        """What every edit does at a step."""
        if step not in self._states:
            self._states[step] = [edit.at(step, self.steps) for edit in self.edits]
        return self._states[step]

    def _work_out(self, step: int, rows: BatchRows, ours: Set[int], device: torch.device) -> Call:
        controlled, lengths = rows.of(ours), rows.columns
        columns = max(lengths)
        coupled = controlled if self.couples(step) else controlled[:0]
        pairs, numbers = pair_up(rows[coupled], coupled, 1 + len(self.edits))
        states = [self._at(step)[number] for number in numbers]
        injected = torch.tensor([state.self_attention for state in states], dtype=torch.bool)
        on_device = Pairs(pairs.source.to(device), pairs.edited.to(device))
        chosen = injected.to(device)
        return Call(
            step=step,
            rows=len(rows),
            columns=columns,
            lengths=None if set(lengths) == {columns} else tuple(lengths),
            controlled=controlled.to(device),
            latent_rows=tuple(rows[controlled].latent_rows),
            pairs=on_device,
            source_columns=self.source_columns,
            cross=_cross_edit(on_device.edited, states, columns, device),
            self_pairs=Pairs(*(part[chosen] for part in on_device)) if injected.any() else None,
        )


def pair_up(rows: BatchRows, positions: Tensor, group: int) -> tuple[Pairs, list[int]]:
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
    source, edited, numbers = [], [], []
    for (conditioning, seed, member), places in sorted(found.items()):
        if member == 0:
            continue
        sources = found.get((conditioning, seed, 0), [])
        if len(sources) != len(places):
            raise ValueError(
                "Source and edit were not evaluated in the same model call, but the edit looks at "
                "the source's attention. Another node splits the batch: remove it."
            )
        source += sources
        edited += places
        numbers += [member - 1] * len(places)
    return Pairs(torch.tensor(source, dtype=torch.long), torch.tensor(edited, dtype=torch.long)), (
        numbers
    )


def _cross_edit(
    edited: Tensor, states: Sequence[StepEdit], columns: int, device: torch.device
) -> CrossEdit | None:
    """S and w of all edited rows, over the columns of the call; None if none is changed."""
    if not any(state.cross_attention for state in states):
        return None
    short = [columns - len(state.target_weight) for state in states]
    maps = [F.pad(s.source_map, (0, more)) for s, more in zip(states, short, strict=True)]
    weights = [
        F.pad(s.target_weight, (0, more), value=1.0) for s, more in zip(states, short, strict=True)
    ]
    return CrossEdit(edited, torch.stack(maps).to(device), torch.stack(weights).to(device))
