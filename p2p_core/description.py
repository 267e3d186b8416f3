"""An edit in words: what is swapped, kept, added and removed, and how strongly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .alignment import common_words
from .edits import PromptEdit
from .prompt import Prompt, Word
from .schedule import Window


@dataclass(frozen=True)
class Changes:
    """How a source prompt becomes a target prompt, by runs of words.

    swapped: (old, new). kept, added, removed: texts.
    """

    swapped: tuple[tuple[str, str], ...]
    kept: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        """What changes, in one line: "red → blue, + striped, - old", or "nothing"."""
        parts = [f"{old} → {new}" for old, new in self.swapped]
        parts += [f"+ {text}" for text in self.added] + [f"- {text}" for text in self.removed]
        return ", ".join(parts) or "nothing"


def changes(source: Prompt, target: Prompt) -> Changes:
    """Words in both prompts are kept; between them stands what was swapped, added or removed."""
    spans = list(aligned_spans(source, target))
    changed = [(old, new) for old, new in spans if not same_words(old, new)]
    return Changes(
        swapped=tuple((_text(old), _text(new)) for old, new in changed if old and new),
        kept=tuple(old[0].text for old, new in spans if same_words(old, new)),
        added=tuple(_text(new) for old, new in changed if not old),
        removed=tuple(_text(old) for old, new in changed if not new),
    )


def aligned_spans(
    source: Prompt, target: Prompt
) -> Iterator[tuple[Sequence[Word], Sequence[Word]]]:
    """(old, new) from left to right: single words that both have, and the runs between them."""
    matches = common_words(source.words, target.words)
    i = j = 0
    for next_i, next_j in [*matches, (len(source.words), len(target.words))]:
        old, new = source.words[i:next_i], target.words[j:next_j]
        if old or new:
            yield old, new
        if next_i < len(source.words):
            yield source.words[next_i : next_i + 1], target.words[next_j : next_j + 1]
        i, j = next_i + 1, next_j + 1


def same_words(old: Sequence[Word], new: Sequence[Word]) -> bool:
    """Whether two runs of words are the same to the text encoder."""
    return [word.tokens for word in old] == [word.tokens for word in new]


def _text(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def scaled_words(edit: PromptEdit) -> list[tuple[str, float]]:
    """The words of the target whose attention is scaled, and by how much."""
    found = []
    for word in edit.target.words:
        scales = edit.equalizer[list(word.columns)]
        changed = scales[scales != 1]
        if len(changed):
            found.append((word.text, float(changed[0])))
    return found


def short_label(edit: PromptEdit) -> str:
    """What the edit does, for a caption: "red → blue, striped × 2"."""
    changed = str(changes(edit.source, edit.target))
    scaled = [f"{text} × {scale:g}" for text, scale in scaled_words(edit)]
    parts = ([] if changed == "nothing" else [changed]) + scaled
    return ", ".join(parts) or "no change"


def describe(edit: PromptEdit) -> str:
    """The whole edit, line by line, before anything is sampled.

    Every word of the target with its columns, its window (shares of the steps in which it looks
    where the source does) and its scale.
    """
    made = changes(edit.source, edit.target)
    kept = " ".join(made.kept) or "nothing"
    lines = [f"Changed: {short_label(edit)}", f"Kept: {kept}"]
    scales = dict(scaled_words(edit))
    for word in edit.target.words:
        columns = ", ".join(map(str, word.columns))
        scale = f", × {scales[word.text]:g}" if word.text in scales else ""
        lines.append(
            f"{word.text}: column {columns}, {_share(edit.windows[word.columns[0]])}{scale}"
        )
    lines.append(f"self-attention: {_share(edit.self_window)}")
    return "\n".join(lines)


def _share(window: Window) -> str:
    if window.start >= window.end:
        return "never the source's"
    return f"the source's {window.start:g}-{min(window.end, 1):g}"


def warning(edit: PromptEdit) -> str | None:
    """What makes an edit one in name only; None if it will do something."""
    if short_label(edit) == "no change":
        return (
            "Source and target prompt are the same and no word is scaled: the edited picture will "
            "be the source."
        )
    return None
