"""A prompt as the text encoder sees it: words, their tokens, and their attention columns.

A text encoder reads chunks of fixed length, ``[bos] tokens [eos] padding…``; several chunks stand
side by side. A *column* is a position in that row, and so an index into every cross-attention map.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """One word (or punctuation mark, or embedding): its tokens and the columns they occupy."""

    text: str
    tokens: tuple[Hashable, ...]
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt.

    bos, eos: one column per chunk. padding: every column behind an eos.
    chunk_length: columns per chunk (77 for CLIP); length: all columns, T. columns: T of a text
    that is no row of chunks, where bos and eos are what stands before and behind the words. parts:
    the prompt in each of several sets of columns, which are aligned by themselves; first: the
    column of such a set's first token.
    """

    text: str
    words: tuple[Word, ...]
    bos: tuple[int, ...]
    eos: tuple[int, ...]
    padding: tuple[int, ...]
    chunk_length: int
    columns: int | None = None
    parts: tuple[Prompt, ...] = ()
    first: int = 0

    @property
    def chunks(self) -> int:
        return len(self.bos)

    @property
    def length(self) -> int:
        return self.chunks * self.chunk_length if self.columns is None else self.columns

    def occurrences(self, phrase: Sequence[Word]) -> tuple[int, ...]:
        """Columns of every occurrence of ``phrase``, a run of whole words; empty if none."""
        wanted = [word.tokens for word in phrase]
        have = [word.tokens for word in self.words]
        starts = [
            start
            for start in range(len(have) - len(wanted) + 1)
            if wanted and have[start : start + len(wanted)] == wanted
        ]
        runs = (self.words[start : start + len(wanted)] for start in starts)
        return tuple(sorted({column for run in runs for word in run for column in word.columns}))

    def missing(self, label: str) -> ValueError:
        """The error that a word or phrase is not in this prompt, listing the prompt's words."""
        words = ", ".join(dict.fromkeys(word.text for word in self.words)) or "none"
        return ValueError(
            f"{label!r} is not in the prompt {self.text!r}. Its words are: {words}. "
            "Use a word or phrase of the prompt; separate several with commas."
        )
