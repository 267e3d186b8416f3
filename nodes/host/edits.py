"""P2P_EDIT: what the edit nodes hand to the controller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...p2p_core.edits import PromptEdit


@dataclass(frozen=True, eq=False)
class Edit:
    """An edit of a prompt, and the CLIP that reads its words.

    plain: there is nothing to edit, only the source is made (its prompt_edit is the identity).
    """

    clip: Any
    prompt_edit: PromptEdit
    plain: bool = False
