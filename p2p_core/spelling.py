"""Words and phrases as places in a text, and the tokens that spell them.

A word has other token ids at the start of a prompt, behind a quote or a bracket; its characters
are the same everywhere. So words are found in the text, whatever the tokeniser.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .letters import Letter, in_word, is_mark, is_unspaced, letters


class Token(NamedTuple):
    """A token's place in the text, characters [start, end), and in the tokeniser's list."""

    start: int
    end: int
    index: int
    known: bool = True


class SpelledWord(NamedTuple):
    """A word, or what cannot be parted from it: its place, its text, and its tokens' indices."""

    start: int
    end: int
    text: str
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Spelling:
    """A text and the tokens that spell it, in their order."""

    text: str
    tokens: tuple[Token, ...]

    def tokens_in(self, start: int, end: int) -> tuple[Token, ...]:
        """The tokens that have a part in the characters [start, end)."""
        return tuple(t for t in self.tokens if t.start < end and start < t.end)

    def find(self, phrase: str) -> tuple[tuple[int, int], ...]:
        """Where the phrase stands as whole words; case and the kind of white space do not matter.

        Words end at anything that is no letter or digit, and at every letter of a script that is
        written without spaces.
        """
        wanted = "".join(letter.char for letter in _spaced(phrase.strip()))
        have = _spaced(self.text)
        joined = "".join(letter.char for letter in have)
        starts = [m.start() for m in re.finditer(f"(?={re.escape(wanted)})", joined)]
        ends = [start + len(wanted) for start in starts]
        return tuple(
            (have[start].start, have[end - 1].end)
            for start, end in zip(starts, ends, strict=True)
            if wanted and _parts_words(have, start) and _parts_words(have, end)
        )

    def words(self, others: Sequence[Spelling] = ()) -> tuple[SpelledWord, ...]:
        """The text as words, marks of punctuation and unspaced letters, each with its tokens.

        What shares a token stays one word, also if it does so in another spelling of the text:
        CLIP reads 't and T5 don' in don't.
        """
        groups: list[tuple[int, int]] = []
        for start, end in _atoms(self.text):
            own = self.tokens_in(start, end)
            if own and groups and any(s._share(groups[-1][1], start) for s in (self, *others)):
                groups[-1] = (groups[-1][0], end)
            elif own:
                groups.append((start, end))
        ends = [*(start for start, _ in groups[1:]), len(self.text)]
        return tuple(
            SpelledWord(start, end, self.text[start:end], self._indices(start, until))
            for (start, end), until in zip(groups, ends, strict=True)
        )

    def _share(self, end: int, start: int) -> bool:
        """Whether a token holds what ends before ``end`` and what begins at ``start``."""
        return any(token.start < end and start < token.end for token in self.tokens)

    def _indices(self, start: int, end: int) -> tuple[int, ...]:
        return tuple(token.index for token in self.tokens_in(start, end))


def _spaced(text: str) -> list[Letter]:
    """The text's letters, with a space where white space parts two words.

    Beside marks of punctuation and unspaced letters a space means nothing.
    """
    made: list[Letter] = []
    space = None
    for i, char in enumerate(text):
        if char.isspace():
            space = i
            continue
        for letter in letters(char, i):
            if space is not None and made and _joins(made[-1].char) and _joins(letter.char):
                made.append(Letter(" ", space, space + 1))
            made.append(letter)
            space = None
    return made


def _joins(char: str) -> bool:
    return in_word(char) and not is_unspaced(char)


def _parts_words(have: Sequence[Letter], place: int) -> bool:
    """Whether words may end between the letters before and at ``place``."""
    if place in (0, len(have)):
        return True
    before, after = have[place - 1], have[place]
    if before.start == after.start or is_mark(after.char):
        return False
    if not (in_word(before.char) and in_word(after.char)):
        return True
    return is_unspaced(before.char) or is_unspaced(after.char)


def _atoms(text: str) -> list[tuple[int, int]]:
    """Places of words, single marks of punctuation and single unspaced letters."""
    have = _spaced(text)
    cuts = [0, *(i for i in range(1, len(have)) if _parts_words(have, i)), len(have)]
    runs = [have[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    return [(run[0].start, run[-1].end) for run in runs if run and run[0].char != " "]
