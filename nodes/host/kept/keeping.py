"""What one run does for a kept source: keep its own source, or follow the one that was kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Set
from typing import Any

from torch import Tensor

from ....p2p_core.attention import Rows, Source
from ....p2p_core.kept import KeptCall, KeptRun, KeptSource, Shelf, differences, taken
from ....p2p_core.schedule import Window
from ..families.unet import Layer
from .joint import Kept
from .sizes import spelled

OTHERS = (
    "Nothing could be kept of the source: a ControlNet, or another node's patches, would see fewer "
    "rows than they may count on. Remove them, or the kept source."
)


class Keeping:
    """One run's part in a kept source.

    windows: in which steps each kind of attention (of KeptCall's fields) is kept, and sizes: its
    bytes in a model call. group: rows of a seed. steps: of the run. pinned: whether the source's
    path is an inversion's, which sets it by itself. Raises ValueError for a source that has changed
    since it was kept, where that is to be refused.
    """

    def __init__(
        self, source: KeptSource, identity: dict[str, Any], windows: Mapping[str, Window],
        sizes: Mapping[str, int] | None, group: int, steps: int, pinned: bool,
    ) -> None:  # fmt: skip
        self.source, self.identity, self.windows, self.sizes = source, identity, windows, sizes
        self.group, self.steps, self.pinned = group, steps, pinned
        self.shelf, self.left = Shelf(), source.budget
        self.calls: list[KeptCall] = []
        self.number = -1
        self.recorded: set[int] = set()
        self.live = 0  # model calls of which too little is kept
        self.followed = _still_valid(source, identity)

    def size_up(self, joint: Callable[[], int]) -> None:
        """Before a transformer's model calls: say how much its attention takes, bytes a call."""
        if self.sizes is not None or self.followed is not None:
            return
        self.sizes = {"joint": joint()}
        inside = sum(self.windows["joint"].holds(step, self.steps) for step in range(self.steps))
        if self.source.full and inside:
            need = self.sizes["joint"]
            fits = min(self.source.budget // max(need, 1), inside)
            self._say(
                f"What edits look at takes {spelled(need)} for each step inside the windows "
                f"({inside} of {self.steps}); the budget of {spelled(self.source.budget)} holds "
                f"{fits}."
            )

    @property
    def final(self) -> Tensor | None:
        """Where the source ends, (seeds, C, h, w) in the model's scale; None if not known yet."""
        return None if self.followed is None else self.followed.final

    def on_call(self, x: Tensor) -> None:
        """Before every model call of the sampler, with its latent: (seeds * group, C, h, w)."""
        self.number += 1
        if self.followed is None:
            self.calls.append(KeptCall(self.shelf.put(x[:: self.group])))
        elif not self.pinned:
            x[:: self.group] = taken(self.followed.calls[self.number].x, x.device)

    def on_end(self, x: Tensor) -> None:
        """With the sampler's result."""
        if self.followed is None:
            final = self.shelf.put(x[:: self.group])
            self.finished = KeptRun(self.identity, self.calls, final)
        elif not self.pinned:
            x[:: self.group] = taken(self.followed.final, x.device)

    def shown(self, denoised: Tensor) -> Tensor:
        """A step's denoised prediction as a preview should show it."""
        if self.followed is None or self.pinned:
            return denoised
        rows = denoised.clone()
        rows[:: self.group] = taken(self.followed.final, denoised.device)
        return rows

    def instead(self, looked_at: Set[str]) -> KeptCall | None:
        """What was kept of this model call, if it is all that is looked at: KeptCall's fields."""
        if self.followed is None:
            return None
        call = self.followed.calls[self.number]
        return None if any(getattr(call, name) is None for name in looked_at) else call

    def recorder(self, step: int, whole: bool) -> Recorder | None:
        """Who keeps this model call's attention; None for nobody.

        whole: whether it is one of the whole picture with nobody else looking at its rows.
        """
        if self.followed is not None or not whole:
            return None
        call = self.calls[self.number]
        if self.number in self.recorded:  # evaluated twice: which one would an edit follow?
            call.cross = call.tokens = call.joint = call.maps = None
            return None
        self.recorded.add(self.number)
        assert self.sizes is not None
        held = [name for name, window in self.windows.items() if window.holds(step, self.steps)]
        wanted = held if self.source.full else []
        need = sum(self.sizes[name] for name in wanted)
        if need > self.left:
            self.left = 0  # from here on the source stays live
            self.live += 1
            wanted = []
        self.left -= sum(self.sizes[name] for name in wanted)
        for name in wanted:
            setattr(call, name, {})
        return Recorder(self.shelf, call)

    def finish(self) -> None:
        """After a run that ended well: what it kept is the source of the next ones."""
        if self.followed is not None:
            return
        if not self.recorded:
            self._say(OTHERS)
            return
        self.source.run = self.finished
        live = f"; {self.live} of {len(self.calls)} model calls keep evaluating it"
        kept = f"The source is kept: {spelled(self.finished.bytes)}"
        self._say(f"{kept}{live if self.live else ''}.")

    def _say(self, text: str) -> None:
        logging.info(text)
        self.source.tell(text)


class Recorder:
    """Keeps the attention of one model call. Rows are the sources', one a seed."""

    def __init__(self, shelf: Shelf, call: KeptCall) -> None:
        self.shelf, self.call = shelf, call
        self._masks: dict[int, tuple[Tensor, Tensor]] = {}

    def tokens(self, layer: Layer, n: Tensor, rows: Rows) -> None:
        """n: (B, Q, C), what a layer's self-attention reads."""
        if self.call.tokens is not None:
            self.call.tokens[layer] = self.shelf.put(n[rows])

    def cross(self, layer: Layer, source: Source) -> None:
        """Queries and keys of a layer's cross-attention."""
        if self.call.cross is not None:
            self.call.cross[layer] = Source(*map(self.shelf.put, source))

    @property
    def keeps_joint(self) -> bool:
        """Whether a transformer's attention is kept."""
        return self.call.joint is not None

    def joint(self, index: int, source: Kept, mask: Tensor | None) -> None:
        """A transformer's attention call. mask: of the whole batch, the same for many calls."""
        assert self.call.joint is not None
        if mask is not None and source.mask is not None:
            if id(mask) not in self._masks:
                self._masks[id(mask)] = mask, self.shelf.put(source.mask)
            source = source._replace(mask=self._masks[id(mask)][1])
        q, k = self.shelf.put(source.q), self.shelf.put(source.k)
        self.call.joint[index] = source._replace(q=q, k=k)

    def maps(self, total: Tensor) -> None:
        """The sum of the call's coarse maps, (seeds, h * w, T_s)."""
        self.call.maps = self.shelf.put(total)


def _still_valid(source: KeptSource, identity: Mapping[str, Any]) -> KeptRun | None:
    """The kept run, if it is one of this very source; ValueError where another is refused."""
    if source.run is None:
        return None
    changed = differences(source.run.identity, dict(identity))
    if not changed:
        return source.run
    what = " and ".join(filter(None, [", ".join(changed[:-1]), changed[-1]]))
    verb = "are" if len(changed) > 1 or what.endswith("s") else "is"
    if source.refuses:
        raise ValueError(
            f"The source was kept from another run: {what} {verb} not what it was. Set it back, or "
            'choose "keep anew" in P2P Keep Source.'
        )
    source.run = None
    text = f"The source is kept anew, since {what} {verb} not what it was."
    logging.info(text)
    source.tell(text)
    return None
