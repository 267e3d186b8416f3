"""Instructions of the painted world: how one asks for an edit of a one-object prompt."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from world import BACKGROUNDS, COLOURS, SHAPES, Noun, Prompt, is_held_out

KINDS = ("colour", "shape", "background", "texture")
PHRASES = {
    "colour": ("make it {new}", "make the {shape} {new}", "turn it {new}", "paint it {new}"),
    "shape": ("turn it into a {new}", "turn the {shape} into a {new}", "make it a {new}"),
    "background": (
        "put it on a {new} background",
        "make the background {new}",
        "turn the background {new}",
    ),
    "texture": ("make it striped", "make the {shape} striped", "add stripes"),
}
EXTRA_WORDS = {"make", "turn", "paint", "put", "add", "it", "the", "into", "stripes"}


@dataclass(frozen=True)
class Instruction:
    """kind: what changes. text: the instruction. source, target: the prompts before and after."""

    kind: str
    text: str
    source: Prompt
    target: Prompt


def is_new(prompt: Prompt) -> bool:
    """Whether training never shows the prompt's combination of shape, colour and background."""
    noun = prompt.nouns[0]
    return is_held_out(noun.shape, noun.colour or "", prompt.background or "")


def sample_source(rng: Random, held_out: bool) -> Prompt:
    """A random prompt of one plain object; unless held_out, one that training may show."""
    while True:
        background = rng.choice(list(BACKGROUNDS))
        colour = rng.choice([name for name in COLOURS if name != background])
        source = Prompt((Noun(rng.choice(SHAPES), colour),), background)
        if held_out or not is_new(source):
            return source


def sample_instruction(
    rng: Random, source: Prompt, kind: str, held_out: bool
) -> Instruction | None:
    """A random instruction of a kind; its target is a held-out combination, or none.

    None where no target is like that. Stripes leave the combination as it is.
    """
    targets = [(t, new) for t, new in _targets(kind, source) if is_new(t) == held_out]
    if not targets:
        return None
    target, new = rng.choice(targets)
    text = rng.choice(PHRASES[kind]).format(new=new, shape=source.nouns[0].shape)
    return Instruction(kind, text, source, target)


def _targets(kind: str, source: Prompt) -> list[tuple[Prompt, str]]:
    """All prompts after an edit of this kind, each with the word that is new in it."""
    noun = source.nouns[0]
    taken = (noun.colour, source.background)
    if kind == "colour":
        return [(source.with_noun(colour=c), c) for c in COLOURS if c not in taken]
    if kind == "background":
        return [(source.with_background(b), b) for b in BACKGROUNDS if b not in taken]
    if kind == "shape":
        return [(source.with_noun(shape=s), s) for s in SHAPES if s != noun.shape]
    return [(source.with_noun(texture="striped"), "striped")]
