"""The syntax of weights, by hand and against the host's own parser."""

from __future__ import annotations

import random

import pytest
from comfy.sd1_clip import escape_important, token_weights, unescape_important

from p2p_core.weighted_text import WeightedSpan, escape_brackets, parse_weights

HAND = [
    ("a red hat", "a red hat", []),
    ("(a red hat:1.5)", "a red hat", [("a red hat", 1.5)]),
    ("a hat, (blurry:-1)", "a hat, blurry", [("blurry", -1.0)]),
    ("a (red) hat", "a red hat", [("red", 1.1)]),
    ("a ((red)) hat", "a red hat", [("red", 1.1 * 1.1)]),
    ("a (very (red:0.5) big:2) hat", "a very red big hat",
     [("very ", 2.0), ("red", 0.5), (" big", 2.0)]),
    ("((red) hat:2)", "red hat", [("red", 2 * 1.1), (" hat", 2.0)]),
    (r"a \(red\) hat", "a (red) hat", []),
    (r"(a \(red\) hat:0.3)", "a (red) hat", [("a (red) hat", 0.3)]),
    (r"(a \(red:2\):3)", "a (red:2)", [("a (red:2)", 3.0)]),
    ("(red:1.0) hat", "red hat", []),
    ("(at 10:30) now", "at 10 now", [("at 10", 30.0)]),
    ("(note: red)", "note: red", [("note: red", 1.1)]),
    ("(:1.5)", ":1.5", [(":1.5", 1.1)]),
    ("(red:.5)(blue:+2)", "redblue", [("red", 0.5), ("blue", 2.0)]),
    ("cat (cat:2) cat (cat:-0.5)", "cat cat cat cat", [("cat", 2.0), ("cat", -0.5)]),
    ("smile :) and (red:2)", "smile :) and (red:2)", []),
    ("an (open bracket", "an (open bracket", []),
    ("() ( )", "  ", [(" ", 1.1)]),
    ("(猫:2) (🐱:-1)", "猫 🐱", [("猫", 2.0), ("🐱", -1.0)]),
    ("", "", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "clean", "weighted"), HAND)
def test_by_hand(text: str, clean: str, weighted: list[tuple[str, float]]) -> None:
    made = parse_weights(text)
    assert made.text == clean
    assert [(clean[s.start : s.end], s.weight) for s in made.spans] == weighted


def test_spans_are_places_not_words() -> None:
    assert parse_weights("cat (cat:2)").spans == (WeightedSpan(4, 7, 2.0),)


def by_the_host(text: str) -> tuple[str, list[float]]:
    """The clean text, and a weight for each of its characters, as the host reads them."""
    parts = [(unescape_important(t), w) for t, w in token_weights(escape_important(text), 1.0)]
    return "".join(t for t, _ in parts), [w for t, w in parts for _ in t]


def by_us(text: str) -> tuple[str, list[float]]:
    made = parse_weights(text)
    weights = [1.0] * len(made.text)
    for span in made.spans:
        weights[span.start : span.end] = [span.weight] * (span.end - span.start)
    return made.text, weights


def test_parity_with_the_host() -> None:
    pieces = ["(", ")", "(", ")", ":", "1.5", "-1", "\\(", "\\)", "\\", "a", " ", "cat", ",", "猫"]
    dice = random.Random(3)
    texts = ["".join(dice.choices(pieces, k=dice.randint(1, 14))) for _ in range(20_000)]
    for text in [*texts, *(text for text, _, _ in HAND)]:
        assert by_us(text) == by_the_host(text), text


@pytest.mark.parametrize("clean", ["a (red) hat", "a :) b", "((", r"a\(b", "plain"])
def test_escaped_text_has_no_weights(clean: str) -> None:
    made = parse_weights(escape_brackets(clean))
    assert (made.text, made.spans) == (clean, ())


@pytest.mark.parametrize("weight", ["nan", "inf", "-inf"])
def test_weights_are_finite(weight: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        parse_weights(f"a (red:{weight}) hat")
