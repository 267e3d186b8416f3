"""Attention control inside a transformer, for one model call, driven by its layout alone.

One override goes into the call's own transformer_options, around another pack's. Calls are known by
their order. It is a bound method whose state is in the object, so a compiled network sees one
function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....p2p_core.attention import Rows, as_rows, count, with_rows
from ....p2p_core.joint_attention import (
    JointEdit,
    at,
    joint_hybrid,
    joint_qk,
    scaled_values,
)
from ..compiled import uncompiled
from ..families.following import Follower
from ..families.record import Call, Kind, Layout
from ..kept.joint import Kept
from ..kept.keeping import Recorder
from .host_attention import HostAttention, mask_part
from .modes import Ask
from .places import Pairing, pairing
from .word_maps import WordMaps


class Part(NamedTuple):
    """Some of the edits, by number; their rows in the batch, and their sources' among those."""

    numbers: Sequence[int]
    rows: Rows
    of: Rows


class Parts(NamedTuple):
    """Edits whose joint map is edited, those that take queries and keys, those that scale words.

    others: the rows whose joint map stays.
    """

    joint: Part | None = None
    injected: Part | None = None
    scaled: Part | None = None
    others: Rows = slice(0, 0)

    @property
    def acts(self) -> bool:
        return any(part is not None for part in self[:3])


@dataclass(eq=False)
class TransformerControl:
    """One model call. layout: of its network; size: of its latent; rows: of its batch.

    sources: rows of the batch to keep for other prompts' calls, into ``kept`` by call index.
    edited: rows that are edited, asks: what each asks for, and pairs: which of the sources each
    follows, those of the batch or, where it has none, the ``kept`` of an earlier call. looked_at:
    whether any edit of the call looks at its source at this step. blocks: which of the calls that
    read text are edited, None for all. maps: who collects attention maps, and recorder: who keeps
    sources for later runs, if anyone. memory: of the run, for positions, under this prompt's
    ``name``.
    """

    layout: Layout
    size: tuple[int, int]
    rows: int
    sources: Sequence[int]
    edited: Sequence[int]
    pairs: Sequence[int]
    asks: Sequence[Ask]
    blocks: Set[int] | None = None
    kept: dict[int, Kept] = field(default_factory=dict)
    looked_at: bool = True
    keeps: bool = False
    maps: WordMaps | None = None
    recorder: Recorder | None = None
    memory: dict[tuple, Any] = field(default_factory=dict)
    name: tuple = ()
    follower: Follower = field(init=False)
    _previous: Callable | None = None
    _asked: tuple[int, ...] = field(init=False)
    _placed: tuple = field(init=False)

    def __post_init__(self) -> None:
        self.follower = Follower(self.layout)
        self._asked = tuple(map(id, self.asks))  # the run's memory holds them
        self._placed = (self.rows, *(tuple(x) for x in (self.sources, self.edited, self.pairs)))

    @property
    def idle(self) -> bool:
        """Whether every call stays as the host has it."""
        keeps = self.keeps or self.recorder is not None or self.maps is not None
        return not keeps and all(ask.idle for ask in self.asks)

    def install(self, options: dict) -> None:
        """Put the override into a call's own options, around the one that is there."""
        self.follower.watch(options)
        self._previous = options.get("optimized_attention_override")
        options["optimized_attention_override"] = uncompiled(self.attention)

    def attention(
        self, func: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """The host's optimized_attention_override."""
        call = self.follower.next()
        host = HostAttention(func, self._previous, args, kwargs)
        if call.kind is Kind.OTHER or not self._acts(call):
            return host(q, k, v)
        self._check_rows(call, q)
        if v.ndim == 4 and not host.by_head:
            v = v.flatten(2)
        here = self._here(call, host, q, k)
        source = self._source(call, here, q, k)
        if source is None:  # a cache of another node answered the source's call
            return host(q, k, v)
        if self.keeps:
            self.kept[call.index] = source
        if self.recorder is not None:
            self.recorder.joint(call.index, source, host.mask)
        return self._edited(call, host, q, k, v, here, source)

    def _acts(self, call: Call) -> bool:
        """Whether anything is to be done or kept in a call."""
        if self.maps is not None and self.maps.wants(call):
            return True
        if not is_edited(self.layout, call, self.blocks):
            return False
        keeps = self.keeps or self.recorder is not None
        return keeps or any(not ask.idle for ask in self.asks)

    def _check_rows(self, call: Call, q: Tensor) -> None:
        if len(q) != self.rows:
            raise ValueError(
                f"Another node changed the rows of attention call {call.index} from {self.rows} to "
                f"{len(q)}, so source and edit cannot be told apart there. Remove that node."
            )

    def _here(self, call: Call, host: HostAttention, q: Tensor, k: Tensor) -> Kept:
        """This call's queries, keys, mask and positions."""
        lengths = q.shape[-2], k.shape[-2]
        key = "here", call.queries, call.keys, self.size, lengths
        if key not in self.memory:
            queries = self.layout.queries(call, lengths[0], self.size)
            self.memory[key] = queries, self.layout.keys(call, lengths[1], self.size)
        return Kept(q, k, host.mask, *self.memory[key])

    def _source(self, call: Call, here: Kept, q: Tensor, k: Tensor) -> Kept | None:
        """The sources' part; anything of the right form where no edit looks at it."""
        if not len(self.sources):
            kept = self.kept.get(call.index)
            if kept is not None:
                return kept.on(q.device)
            return None if self.looked_at else here
        key = "sources", self._placed, q.device
        if key not in self.memory:
            self.memory[key] = as_rows(self.sources, q.device)
        rows = self.memory[key]
        own = here._replace(q=q[rows], k=k[rows], mask=mask_part(here.mask, rows, None))
        if self.keeps and isinstance(rows, slice):  # a view would keep the whole batch
            own = own._replace(q=own.q.clone(), k=own.k.clone())
        return own

    def _edited(
        self, call: Call, host: HostAttention, q: Tensor, k: Tensor, v: Tensor, here: Kept,
        source: Kept,
    ) -> Tensor:  # fmt: skip
        edited = is_edited(self.layout, call, self.blocks)
        parts = self._parts(call.reads_text, q.device) if edited else Parts()
        pair = self._pairing(call, here, source, q.device) if parts.acts else None
        if pair is not None:
            q, k, v = self._injected(q, k, v, parts, source, pair)
        if self.maps is not None and self.maps.wants(call):
            joint = parts.joint.numbers if parts.joint is not None else ()
            self.maps.collect(call, host, here._replace(q=q, k=k), v, source, joint)
        if pair is None or parts.joint is None:
            return host(q, k, v)
        return self._hybrid(host, q, k, v, parts.joint, parts.others, source, pair)

    def _injected(
        self, q: Tensor, k: Tensor, v: Tensor, parts: Parts, source: Kept, pair: Pairing
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The source's image queries and keys, and scaled words, in the rows that ask for them."""
        here, there = pair.edited, pair.source
        if parts.injected is not None:
            _, rows, of = parts.injected
            q = joint_qk(q, rows, source.q[of], here.queries, there.queries)
            if count(here.image):
                k = joint_qk(k, rows, source.k[of], here.image, there.image)
        if parts.scaled is not None and len(pair.columns):
            numbers, rows, _ = parts.scaled
            new = scaled_values(v[rows], pair.words, self._scale(pair, numbers, v.device))
            v = with_rows(v, rows, new)
        return q, k, v

    def _hybrid(
        self, host: HostAttention, q: Tensor, k: Tensor, v: Tensor, joint: Part, others: Rows,
        source: Kept, pair: Pairing,
    ) -> Tensor:  # fmt: skip
        """Edited joint maps in some rows, the host's attention in the others."""
        numbers, rows, of = joint
        own, their = (mask_part(m, r, None) for m, r in ((host.mask, rows), (source.mask, of)))
        queries = at(source.q[of], pair.source.queries)

        def source_map(values: Tensor) -> Tensor:
            mask = mask_part(their, None, pair.source.queries)
            return host.with_mask(mask)(queries, source.k[of], values)

        def own_map(places: Rows, values: Tensor) -> Tensor:
            mask = mask_part(own, None, places)
            return host.with_mask(mask)(at(q[rows], places), k[rows], values)

        edit = self._joint_edit(pair, numbers, v)
        new = joint_hybrid(
            source_map, own_map, v[rows], source.k.shape[-2], edit, pair.edited, pair.source
        )
        if not count(others):
            return new
        mask = mask_part(host.mask, others, None)
        out = new.new_empty(len(q), *new.shape[1:])
        out[rows] = new
        out[others] = host.with_mask(mask)(q[others], k[others], v[others])
        return out

    def _parts(self, reads_text: bool, device: torch.device) -> Parts:
        """Which rows are changed in which way, the same for all calls that read text or do not."""
        key = ("parts", self.name, self._asked, self._placed, reads_text, device)
        if key not in self.memory:
            asks = [(i, ask) for i, ask in enumerate(self.asks) if not ask.idle]
            joint = [i for i, ask in asks if ask.source_map is not None and reads_text]
            rest = [(i, ask) for i, ask in asks if i not in joint]
            edited = [self.edited[i] for i in joint]
            self.memory[key] = Parts(
                self._part(joint, device),
                self._part([i for i, ask in rest if ask.inject], device),
                self._part([i for i, ask in rest if ask.scale is not None], device),
                as_rows([row for row in range(self.rows) if row not in edited], device),
            )
        return self.memory[key]

    def _part(self, numbers: list[int], device: torch.device) -> Part | None:
        if not numbers:
            return None
        sides = ([side[i] for i in numbers] for side in (self.edited, self.pairs))
        rows, of = (as_rows(side, device) for side in sides)
        return Part(numbers, rows, of)

    def _scale(self, pair: Pairing, numbers: Sequence[int], device: torch.device) -> Tensor:
        """What the words' values are scaled by, (E, T)."""
        key = "scale", id(pair), self._asked, device
        if key not in self.memory:
            scales = [scale for i in numbers if (scale := self.asks[i].scale) is not None]
            self.memory[key] = torch.stack(scales)[:, pair.columns].to(device)
        return self.memory[key]

    def _joint_edit(self, pair: Pairing, numbers: Sequence[int], v: Tensor) -> JointEdit:
        """S, w and β, the same for all calls of like positions while no window opens or closes."""
        key = "edit", id(pair), self._asked, v.device, v.dtype
        if key not in self.memory:
            asks = [self.asks[i] for i in numbers]
            self.memory[key] = pair.edit(asks, v.device, v.dtype)
        return self.memory[key]

    def _pairing(self, call: Call, here: Kept, source: Kept, device: torch.device) -> Pairing:
        sides = (here.queries, here.keys), (source.queries, source.keys)
        lengths = tuple(part.length for side in sides for part in side)
        own = source is here
        key = "pairing", call.queries, call.keys, self.name, self.size, lengths, own, device
        if key not in self.memory:
            self.memory[key] = pairing(*sides, device)
        return self.memory[key]


def is_edited(layout: Layout, call: Call, blocks: Set[int] | None) -> bool:
    """Whether an edit of these blocks, None for all, acts in a call.

    One that reads text counts for itself, one of the image alone for the next.
    """
    if call.kind is Kind.OTHER or blocks is None:
        return call.kind is not Kind.OTHER
    following = [index for index in layout.reading if index >= call.index]
    block = following[0] if following else layout.reading[-1]
    return layout.reading.index(block) in blocks
