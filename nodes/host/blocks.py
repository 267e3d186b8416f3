"""Attention blocks that a user names by number."""

from __future__ import annotations

from collections.abc import Set

MOST = 9999  # no model has so many blocks


def parse_blocks(text: str) -> frozenset[int] | None:
    """Block numbers from "0-8, 12"; None, for all blocks, from an empty text."""
    blocks: set[int] = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        first, dash, last = part.partition("-")
        try:
            numbers = range(int(first), int(last if dash else first) + 1)
        except ValueError:
            numbers = range(0)
        if not numbers or numbers[0] < 0 or numbers[-1] > MOST:
            raise ValueError(
                f"blocks has {part!r}, which is no block or range of blocks. Write for example "
                "'0-8, 12', or nothing for all blocks."
            )
        blocks.update(numbers)
    return frozenset(blocks) if blocks else None


def check_blocks(blocks: Set[int] | None, count: int) -> None:
    """ValueError for a block that a model of ``count`` blocks does not have."""
    if blocks is not None and max(blocks) >= count:
        raise ValueError(
            f"blocks names block {max(blocks)}, but the words are read in {count} blocks of this "
            f"model: use 0 to {count - 1}."
        )
