"""What a probe found out about a transformer's attention: one frozen record for a text length.

Every attention call of a forward pass is known by its index in the order of calls, never by its
shape, which two different calls can share. Found on a small latent, the record is carried to the
latent's true size: text and what belongs to it stay, the run of image positions grows.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

# Roles of a position; from 0 on: the conditioning column that stands there.
IMAGE, OTHER, REFERENCE = -1, -2, -3
PATCHES = (1, 2, 4, 8, 16, 32, 64)


class Kind(Enum):
    """What image queries see in a call."""

    JOINT = "text and image"
    CROSS = "text"
    SELF = "image"
    OTHER = "neither"  # or there are no image queries


class Run(NamedTuple):
    """``length`` neighbouring positions of one role; text begins with column ``column``."""

    role: int
    length: int

    @property
    def text(self) -> bool:
        return self.role >= 0


def runs_of(roles: Sequence[int]) -> tuple[Run, ...]:
    """Neighbouring positions of like role (for text: of columns that follow each other) as runs."""
    runs: list[Run] = []
    for role in roles:
        if runs:
            last = runs[-1]
            follows = last.role + last.length if last.text else last.role
            if role == follows and (role >= 0) == last.text:
                runs[-1] = Run(last.role, last.length + 1)
                continue
        runs.append(Run(role, 1))
    return tuple(runs)


class Positions(NamedTuple):
    """Where things stand among a call's keys or queries at the true size.

    text: positions, columns: the conditioning column of each; image: positions; length: of all.
    """

    text: Tensor
    columns: Tensor
    image: Tensor
    length: int


@dataclass(frozen=True)
class Call:
    """One attention call. queries, keys: their runs on the probe's latent.

    block: which of the blocks that ComfyUI lets others replace makes it; None for none of them.
    widths: values of a query and of a key, all heads together.
    """

    index: int
    kind: Kind
    queries: tuple[Run, ...] = ()
    keys: tuple[Run, ...] = ()
    patch: int = 0
    block: Hashable = None
    widths: tuple[int, int] = (0, 0)

    @property
    def reads_text(self) -> bool:
        return self.kind in (Kind.JOINT, Kind.CROSS)

    @property
    def text_first(self) -> bool:
        """Whether the text stands before the image (a joint call)."""
        roles = [run.role for run in self.keys if run.text or run.role == IMAGE]
        return roles[0] >= 0


@dataclass(frozen=True)
class Layout:
    """All attention calls of one forward pass, for one length of text.

    tokens: columns of the conditioning as the network gets it. size: the probe's latent (h, w).
    raster: whether image positions run row by row.
    """

    calls: tuple[Call, ...]
    tokens: int
    size: tuple[int, int]
    raster: bool

    @cached_property
    def reading(self) -> tuple[int, ...]:
        """Indices of the calls in which image queries see text."""
        return tuple(call.index for call in self.calls if call.reads_text)

    def grid(self, call: Call, size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of image positions for a latent of this size."""
        return math.ceil(size[0] / call.patch), math.ceil(size[1] / call.patch)

    def values(self, call: Call, size: tuple[int, int]) -> int:
        """Values of the queries and keys of one row at this latent size, but for padding to it."""
        here, there = (math.prod(self.grid(call, at)) for at in (self.size, size))
        lengths = (
            sum(run.length // here * there if run.role == IMAGE else run.length for run in runs)
            for runs in (call.queries, call.keys)
        )
        return sum(n * width for n, width in zip(lengths, call.widths, strict=True))

    def queries(self, call: Call, length: int, size: tuple[int, int]) -> Positions:
        """Where things stand among the call's queries in a run at this latent size.

        Raises ValueError if there are not as many positions as the record promises.
        """
        return self._carried(call, call.queries, length, size)

    def keys(self, call: Call, length: int, size: tuple[int, int]) -> Positions:
        """Where things stand among the call's keys in a run at this latent size."""
        return self._carried(call, call.keys, length, size)

    def _carried(
        self, call: Call, runs: tuple[Run, ...], length: int, size: tuple[int, int]
    ) -> Positions:
        here, there = (math.prod(self.grid(call, at)) for at in (self.size, size))
        image = next((i for i, run in enumerate(runs) if run.role == IMAGE), None)
        sizes = [run.length for run in runs]
        if image is not None:
            frames = sizes[image] // here
            sizes[image] = frames * there
        rest = length - sum(sizes)
        if rest and image is not None:
            # Padding up to a multiple stands behind the image and depends on its size.
            after = image + 1
            pads = after < len(runs) and runs[after].role == OTHER
            if pads and sizes[after] + rest >= 0:
                sizes[after] += rest
                rest = 0
            elif after == len(runs) and 0 < rest < here + there:
                sizes.append(rest)
                runs = (*runs, Run(OTHER, rest))
                rest = 0
        if rest:
            raise ValueError(
                f"Attention call {call.index} of the model has {length} positions where a trial "
                f"on a small latent promised {sum(sizes)}. Another node changes the model's "
                "tokens (a reference, a control, merged tokens): remove it or bypass it."
            )
        return _positions(runs, sizes, length)


def _positions(runs: Sequence[Run], sizes: Sequence[int], length: int) -> Positions:
    text, columns, image, start = [], [], [], 0
    for run, size in zip(runs, sizes, strict=True):
        here = torch.arange(start, start + size)
        if run.text:
            text.append(here)
            columns.append(torch.arange(run.role, run.role + size))
        elif run.role == IMAGE:
            image.append(here)
        start += size
    none = torch.empty(0, dtype=torch.long)
    return Positions(
        torch.cat([*text, none]), torch.cat([*columns, none]), torch.cat([*image, none]), length
    )
