"""Prompts with weights, ``a (red:1.5) hat, (blurry:-1)``: the clean text, and what weighs what.

The syntax is the host's: ``(x:w)`` gives x the weight w, ``(x)`` multiplies the weight around it
by 1.1, brackets nest, an inner ``:w`` replaces the outer weight, ``\\(`` and ``\\)`` are plain
brackets. A bracket without its partner is text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

EMPHASIS = 1.1
ESCAPED = {"\\(": "(", "\\)": ")"}


@dataclass(frozen=True)
class WeightedSpan:
    """Characters [start, end) of the clean text, and their weight."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class WeightedText:
    """A prompt without its weights, and the spans whose weight is not 1, in their order."""

    text: str
    spans: tuple[WeightedSpan, ...]


def parse_weights(text: str) -> WeightedText:
    """Take the weights out of a prompt. Raises ValueError for a weight that is not finite."""
    clean, spans = "", []
    for part, weight in _weighted(_symbols(text), 1.0):
        start, clean = len(clean), clean + "".join(ESCAPED.get(symbol, symbol) for symbol in part)
        if not math.isfinite(weight):
            raise ValueError(
                f"The weight of {clean[start:]!r} is {weight}. Give a finite number, such as "
                f"({clean[start:]}:1.5)."
            )
        if weight != 1.0 and len(clean) > start:
            spans.append(WeightedSpan(start, len(clean), weight))
    return WeightedText(clean, tuple(spans))


def escape_brackets(text: str) -> str:
    """The text with its brackets escaped, so that a reader of weights finds none in it."""
    return text.replace("(", "\\(").replace(")", "\\)")


def unescape_brackets(text: str) -> str:
    """The text as a reader takes it that knows escaped brackets, but no weights."""
    return "".join(ESCAPED.get(symbol, symbol) for symbol in _symbols(text))


def _symbols(text: str) -> list[str]:
    """Characters; an escaped bracket is one symbol of two characters."""
    symbols, i = [], 0
    while i < len(text):
        size = 2 if text[i : i + 2] in ESCAPED else 1
        symbols.append(text[i : i + size])
        i += size
    return symbols


def _weighted(symbols: Sequence[str], weight: float) -> Iterator[tuple[Sequence[str], float]]:
    """Runs of symbols outside all brackets, with their weights."""
    for part in _top_level(symbols):
        if len(part) < 2 or part[0] != "(" or part[-1] != ")":
            yield part, weight
            continue
        inner, own = _own_weight(part[1:-1])
        yield from _weighted(inner, weight * EMPHASIS if own is None else own)


def _own_weight(symbols: Sequence[str]) -> tuple[Sequence[str], float | None]:
    """What stands before the last colon and the number behind it; None if there is no number."""
    colon = max((i for i, symbol in enumerate(symbols) if symbol == ":"), default=0)
    if colon == 0:
        return symbols, None
    try:
        return symbols[:colon], float("".join(symbols[colon + 1 :]))
    except ValueError:
        return symbols, None


def _top_level(symbols: Sequence[str]) -> Iterator[Sequence[str]]:
    """The text cut before a bracket that opens, and behind one that closes, the outermost level.

    A closing bracket without a partner lowers the level, as on the host: what follows it up to
    the next balance is text.
    """
    start, level = 0, 0
    for i, symbol in enumerate(symbols):
        if symbol == "(":
            if level == 0 and i > start:
                yield symbols[start:i]
                start = i
            level += 1
        elif symbol == ")":
            level -= 1
            if level == 0:
                yield symbols[start : i + 1]
                start = i + 1
    if start < len(symbols):
        yield symbols[start:]
