"""Where a tokeniser's tokens stand in a text, found from the bytes that they spell.

A word has other token ids at the start of a prompt, behind a quote or a bracket; its characters
are the same everywhere. So tokens are laid along the text by what they spell, and words and
phrases are places in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile
from typing import NamedTuple

from .letters import Letter, fold, in_word, is_mark, is_unspaced, letters

EMBEDDING = re.compile(r"(?:(?<=\s)|^)embedding:\s*[^\s<\[]+?(?=,*(?:[\s<\[]|$))")
EMBEDDED = "\ue000"  # stands for an embedding's name, on both sides


class Opaque(Enum):
    """Tokens that spell nothing: what the tokeniser does not know, an embedding's vectors."""

    UNKNOWN = "unknown"
    EMBEDDING = "embedding"
    MORE_OF_IT = "embedding, continued"


Piece = bytes | Opaque


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

    def words(self) -> tuple[SpelledWord, ...]:
        """The text as words, marks of punctuation and unspaced letters, each with its tokens.

        What shares a token stays one word.
        """
        groups: list[tuple[int, int]] = []
        for start, end in _atoms(self.text):
            own = self.tokens_in(start, end)
            if own and groups and min(t.start for t in own) < groups[-1][1]:
                groups[-1] = (groups[-1][0], end)
            elif own:
                groups.append((start, end))
        ends = [*(start for start, _ in groups[1:]), len(self.text)]
        return tuple(
            SpelledWord(start, end, self.text[start:end], self._indices(start, until))
            for (start, end), until in zip(groups, ends, strict=True)
        )

    def _indices(self, start: int, end: int) -> tuple[int, ...]:
        return tuple(token.index for token in self.tokens_in(start, end))


def spell(text: str, pieces: Sequence[Piece], before: str = "", after: str = "") -> Spelling:
    """Lay a tokeniser's pieces along ``before + text + after``; those in the text become tokens.

    before, after: the folded letters of a template around the text. A piece of one space belongs
    to the word behind it. Raises ValueError where the pieces do not spell the text.
    """
    letters_there = [
        *(Letter(char, -1, -1) for char in before),
        *_text_letters(text, embedded=Opaque.EMBEDDING in pieces),
        *(Letter(char, -1, -1) for char in after),
    ]
    places: list[tuple[int, int] | None] = []
    for piece, own in zip(pieces, _owned(text, letters_there, pieces), strict=True):
        inside = [letter for letter in own if letter.start >= 0]
        _check_spaces(text, piece, inside)
        places.append((inside[0].start, inside[-1].end) if inside else None)
    _place_spaces(places, pieces)
    _place_unseen(places, pieces, len(text))
    return Spelling(
        text,
        tuple(
            Token(*place, index, pieces[index] is not Opaque.UNKNOWN)
            for index, place in enumerate(places)
            if place is not None
        ),
    )


def _place_spaces(places: list[tuple[int, int] | None], pieces: Sequence[Piece]) -> None:
    """A piece of one space belongs to the piece behind it, if that brings no space of its own."""
    for index in reversed(range(len(pieces) - 1)):
        if pieces[index] == b" " and _bare(pieces[index + 1]):
            places[index] = places[index + 1]


def _place_unseen(
    places: list[tuple[int, int] | None], pieces: Sequence[Piece], length: int
) -> None:
    """What is neither space nor seen (a joiner in an emoji) stands between its neighbours."""
    seen = list(places)
    for index, piece in enumerate(pieces):
        if seen[index] is None and isinstance(piece, bytes) and piece.strip():
            start = max((place[1] for place in seen[:index] if place), default=0)
            end = min((place[0] for place in seen[index:] if place), default=length)
            if start < end:
                places[index] = start, end


def spelled(pieces: Sequence[Piece]) -> str:
    """The folded letters of the pieces; an unknown one is a question mark."""
    known = (b"?" if piece is Opaque.UNKNOWN else piece for piece in pieces)
    joined = b"".join(piece for piece in known if isinstance(piece, bytes))
    return "".join(letter.char for letter in letters(joined.decode("utf-8", "replace")))


def _bare(piece: Piece) -> bool:
    """Whether a piece brings no space of its own."""
    return not isinstance(piece, bytes) or not piece[:1].isspace()


def _text_letters(text: str, embedded: bool) -> list[Letter]:
    """The text's letters; each embedding named in it is one letter, if there are any."""
    made, at = [], 0
    for name in EMBEDDING.finditer(text) if embedded else ():
        made += letters(text[at : name.start()], at)
        made.append(Letter(EMBEDDED, name.start(), name.end()))
        at = name.end()
    return [*made, *letters(text[at:], at)]


def _owned(text: str, there: Sequence[Letter], pieces: Sequence[Piece]) -> list[list[Letter]]:
    """The letters of the text that each piece spells."""
    units = list(_units(pieces))
    places = _laid([char for char, _ in units], "".join(letter.char for letter in there))
    if places is None:
        raise ValueError(
            f"The text encoder's tokens spell {spelled(pieces)!r}, which is not the prompt "
            f"{text!r}, so its words cannot be found. Check embedding names, leave out unusual "
            "characters, or use another version of the transformers package."
        )
    owned: list[list[Letter]] = [[] for _ in pieces]
    for (_, owners), place in zip(units, places, strict=True):
        for owner in owners:
            owned[owner] += [there[i] for i in place]
    return owned


def _units(pieces: Sequence[Piece]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What the pieces spell, letter by letter, and the indices of the pieces that do.

    An unknown piece is an empty string, an embedding's vectors are one letter together. A
    letter's bytes may lie in several pieces.
    """
    run: list[tuple[int, bytes]] = []
    for index, piece in enumerate(pieces):
        if isinstance(piece, bytes):
            run.append((index, piece))
            continue
        yield from _run_letters(run)
        run = []
        if piece is Opaque.UNKNOWN:
            yield "", (index,)
        elif piece is Opaque.EMBEDDING:
            rest = range(index + 1, len(pieces))
            yield EMBEDDED, (index, *takewhile(lambda i: pieces[i] is Opaque.MORE_OF_IT, rest))
    yield from _run_letters(run)


def _run_letters(run: Sequence[tuple[int, bytes]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    by_byte = [index for index, piece in run for _ in piece]
    at = 0
    for char in b"".join(piece for _, piece in run).decode("utf-8", "surrogateescape"):
        size = len(char.encode("utf-8", "surrogateescape"))
        owners = tuple(dict.fromkeys(by_byte[at : at + size]))
        yield from ((folded, owners) for folded in fold(char))
        at += size


def _laid(chars: Sequence[str], text: str) -> list[range] | None:
    """Places in the text for all letters; "" takes one or more, as few as fit. None: no way."""
    parts: list[str] = [""]
    for char in chars:
        if char:
            parts[-1] += char
        else:
            parts.append("")
    places: list[range] = []
    at = 0
    for number, part in enumerate(parts):
        start = at
        if number:
            start = len(text) - len(part) if number == len(parts) - 1 else text.find(part, at + 1)
            places.append(range(at, start))
        if start < at + (number > 0) or not text.startswith(part, start):
            return None
        at = start + len(part)
        places += [range(i, i + 1) for i in range(start, at)]
    return places if at == len(text) else None


def _check_spaces(text: str, piece: Piece, own: Sequence[Letter]) -> None:
    """Raise ValueError for a token that runs over a space of the text without spelling it."""
    between = text[own[0].start : own[-1].end].split() if own else []
    if len(between) > 1 and isinstance(piece, bytes) and len(piece.split()) == 1:
        raise ValueError(
            f"The text encoder's tokeniser loses spaces: it reads {' '.join(between)!r} as "
            f"{piece.decode('utf-8', 'replace')!r}, so words cannot be told apart. Another version "
            "of the transformers package may read it rightly."
        )


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
