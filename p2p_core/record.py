"""What an AttentionController's runs leave behind for pictures and masks."""

from __future__ import annotations

from dataclasses import dataclass

from .edits import PromptEdit


@dataclass(frozen=True, eq=False)
class Record:
    """P2P_RECORD: the edits that the runs carry out."""

    edits: tuple[PromptEdit, ...]
