"""An edit as plain data: what becomes of every word, in which columns, when and how strongly.

For whoever draws it; JSON can carry it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .description import aligned_spans, same_words
from .edits import PromptEdit
from .prompt import Word
from .schedule import Window

KEPT, SWAPPED, ADDED, REMOVED = "kept", "swapped", "added", "removed"


def word_table(edit: PromptEdit) -> dict[str, Any]:
    """The words of both prompts in their order, and when self-attention is the source's.

    spans: [source words, target words] from left to right, one of them empty where words were added
    or removed. A word: text, state, tokens, columns; of the target also window ([start, end] as
    shares of the steps in which it looks where the source does, None for never) and scale.
    """
    spans = []
    for old, new in aligned_spans(edit.source, edit.target):
        state = (
            KEPT if same_words(old, new) else SWAPPED if old and new else ADDED if new else REMOVED
        )
        before = [_row(word, state) for word in old]
        spans.append([before, [_row(word, state) | _acting(edit, word) for word in new]])
    return {"spans": spans, "self_window": _share(edit.self_window)}


def _row(word: Word, state: str) -> dict[str, Any]:
    return {
        "text": word.text,
        "state": state,
        "tokens": [str(token) if isinstance(token, int) else "vector" for token in word.tokens],
        "columns": list(word.columns),
    }


def _acting(edit: PromptEdit, word: Word) -> dict[str, Any]:
    scales = edit.equalizer[list(word.columns)]
    changed: Sequence[float] = scales[scales != 1].tolist()
    return {
        "window": _share(edit.windows[word.columns[0]]),
        "scale": changed[0] if changed else 1.0,
    }


def _share(window: Window) -> list[float] | None:
    return None if window.start >= window.end else [window.start, min(window.end, 1.0)]
