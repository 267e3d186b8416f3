"""Characters as tokenisers compare them: without case, width, composition or white space."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

# Scripts that are written without spaces, or with endings glued to the word, by their names in
# the Unicode character database.
UNSPACED = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}


class Letter(NamedTuple):
    """A folded character, and the characters [start, end) of the text that it comes from."""

    char: str
    start: int
    end: int


@cache
def fold(char: str) -> str:
    """The character decomposed and without case; empty for spaces and what is not seen.

    Tokenisers normalise differently (NFC, NFKC, lower case); this forgets all their differences.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(c for c in folded if not c.isspace() and unicodedata.category(c)[0] != "C")


def letters(text: str, start: int = 0) -> Iterator[Letter]:
    """The folded characters of a text that begins at ``start``."""
    for i, char in enumerate(text, start):
        for folded in fold(char):
            yield Letter(folded, i, i + 1)


def in_word(char: str) -> bool:
    """Whether a character is part of a word: letters, digits, and marks upon them."""
    return char.isalnum() or is_mark(char)


def is_mark(char: str) -> bool:
    """Whether a character only modifies the one before it (accents, variation selectors)."""
    return unicodedata.category(char)[0] == "M"


def is_unspaced(char: str) -> bool:
    """Whether words of the character's script need no space between them."""
    return unicodedata.name(char, "").partition(" ")[0] in UNSPACED
