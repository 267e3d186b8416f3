"""A pinned source needs no unconditional evaluation: leave those rows out of the batch."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

OWN_WRAPPERS = {"p2p", "p2p_null_text"}
ROW_READERS = ("patches", "patches_replace", "optimized_attention_override")


def may_leave_out(options: dict, control: Any) -> bool:
    """Whether nothing but the UNet itself sees the rows: other packs' patches may count them."""
    wrappers = options.get("wrappers", {})
    foreign = set(wrappers.get(WrappersMP.APPLY_MODEL, {})) - OWN_WRAPPERS
    foreign |= set(wrappers.get(WrappersMP.DIFFUSION_MODEL, {}))
    return control is None and not foreign and not any(options.get(key) for key in ROW_READERS)


def needed_rows(uuids: list, rows: int, chunks: Set, group: int) -> Tensor:
    """Rows of a model batch that matter: all of the edited chunks, the edits of every other.

    uuids: of the batch's chunks, one after the other; chunks: the edited ones.
    """
    size = rows // len(uuids)
    return torch.tensor(
        [
            number * size + row
            for number, uuid in enumerate(uuids)
            for row in range(size)
            if uuid in chunks or row % group
        ],
        dtype=torch.long,
    )


def take(value: Any, needed: Tensor, rows: int) -> Any:
    """The needed rows of what has a row for each in the batch."""
    if isinstance(value, list):
        return [take(part, needed, rows) for part in value]
    if isinstance(value, Tensor) and value.ndim and len(value) == rows:
        return value[needed.to(value.device)]
    return value
