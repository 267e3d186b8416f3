"""Which of a layout's attention calls one is, also where another node leaves blocks out.

Calls are known by their order. ComfyUI lets nodes replace a transformer's blocks (skip layer
guidance does); as a trial notes which calls each block makes, order is kept across them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from .record import Call, Layout

REPLACED, BLOCKS = "patches_replace", "dit"


class TrialBlocks(dict):
    """Stands for the blocks' replacements in a trial: every block runs as ever, and is noted.

    current: the block that is running, None outside of blocks.
    """

    current: Hashable = None

    def __contains__(self, block: object) -> bool:
        return True

    def __getitem__(self, block: Hashable) -> Callable:
        return partial(self._run, block)

    def _run(self, block: Hashable, args: Any, extra_args: dict) -> Any:
        self.current = block
        try:
            return extra_args["original_block"](args)
        finally:
            self.current = None

    def installed(self, options: dict) -> dict:
        """A call's options under watch."""
        return {**options, REPLACED: {BLOCKS: self}}


class Follower:
    """Follows the attention calls of one model call. seen: how many are done or left out."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.seen = layout, 0
        self._ends = {c.block: c.index + 1 for c in layout.calls if c.block is not None}

    def watch(self, options: dict) -> None:
        """Wrap the block replacements in a call's own options."""
        replaced = dict(options.get(REPLACED, {}))
        blocks = replaced.get(BLOCKS)
        if not blocks:
            return
        watched = {
            block: partial(self._block, self._ends[block], run) if block in self._ends else run
            for block, run in blocks.items()
        }
        options[REPLACED] = {**replaced, BLOCKS: watched}

    def _block(self, end: int, run: Callable, args: Any, extra_args: dict) -> Any:
        out = run(args, extra_args)
        if self.seen > end:
            raise self._other(self.seen)
        self.seen = end
        return out

    def next(self) -> Call:
        """The call that is made now; ValueError for one that the layout does not promise."""
        if self.seen >= len(self.layout.calls):
            raise self._other(self.seen + 1)
        self.seen += 1
        return self.layout.calls[self.seen - 1]

    def check(self) -> None:
        """ValueError if calls are missing, after a model call; a call of none was skipped whole."""
        if self.seen not in (0, len(self.layout.calls)):
            raise self._other(self.seen)

    def _other(self, made: int) -> ValueError:
        return ValueError(
            f"The model made {made} attention calls where a trial promised "
            f"{len(self.layout.calls)}, so the words cannot be followed in them. Another node "
            "leaves layers out or adds some: remove it or bypass it."
        )


def replaced_blocks(options: dict) -> frozenset[Hashable]:
    """The blocks that other nodes replace in a call."""
    return frozenset(options.get(REPLACED, {}).get(BLOCKS, {}))
