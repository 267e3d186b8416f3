"""Tokens laid along a text by the bytes that they spell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import takewhile

from .letters import Letter, fold, letters
from .spelling import Spelling, Token

EMBEDDING = re.compile(r"(?:(?<=\s)|^)embedding:\s*[^\s<\[]+?(?=,*(?:[\s<\[]|$))")
EMBEDDED = "\ue000"  # stands for an embedding's name, on both sides


class Opaque(Enum):
    """Tokens that spell nothing: what the tokeniser does not know, an embedding's vectors."""

    UNKNOWN = "unknown"
    EMBEDDING = "embedding"
    MORE_OF_IT = "embedding, continued"


Piece = bytes | Opaque


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
