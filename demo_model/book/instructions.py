"""Instructions of the picture book: how one asks for an edit of a one-thing prompt."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from book.edits import Case, colour_swap, dressing, season, setting_swap, thing_swap
from book.things import COLOURS, DRESSED, DYED, KINDS
from book.world import AUTUMNAL, SETTINGS, Noun, Prompt, caption_words, is_held_out

PHRASES = {
    "thing": ("turn it into {a} {new}", "turn the {thing} into {a} {new}", "make it {a} {new}"),
    "colour": ("make it {new}", "make the {thing} {new}", "paint it {new}"),
    "setting": ("put it {new}", "put the {thing} {new}"),
    "season": ("make it autumn", "turn it into autumn"),
    "clothes": ("put {a} {new} on it", "put {a} {new} on the {thing}", "add {a} {new}"),
}
KIND_NAMES = tuple(PHRASES)
EXTRA_WORDS = {"turn", "it", "into", "make", "the", "paint", "put", "add", "autumn", "a", "an"}


@dataclass(frozen=True)
class Instruction:
    """text: the instruction. case: the edit of prompts that it means."""

    text: str
    case: Case


def instruction_words() -> list[str]:
    """Every word of captions and instructions."""
    return sorted({*caption_words(), *EXTRA_WORDS})


MAKERS = {
    "thing": thing_swap,
    "colour": colour_swap,
    "setting": setting_swap,
    "season": season,
    "clothes": dressing,
}


def is_new(prompt: Prompt) -> bool:
    """Whether training never shows the prompt's (thing, colour, setting)."""
    noun = prompt.nouns[0]
    return is_held_out(noun.thing, noun.colour, prompt.setting or "grass")


def sample_source(rng: Random, kind: str, held_out: bool) -> Prompt:
    """A random prompt that an edit of this kind fits; unless held_out, one that is trained."""
    group = DYED if kind == "colour" else DRESSED if kind == "clothes" else tuple(KINDS)
    while True:
        thing = rng.choice(group)
        colour = rng.choice(list(COLOURS)) if thing in DYED else None
        setting = rng.choice(AUTUMNAL if kind == "season" else list(SETTINGS))
        source = Prompt((Noun(thing, colour),), setting)
        if held_out or not is_new(source):
            return source


def _new_word(kind: str, target: Prompt) -> str:
    noun = target.nouns[0]
    words = {
        "thing": noun.thing,
        "colour": noun.colour,
        "setting": SETTINGS[target.setting or "grass"][0],
        "clothes": noun.clothes,
    }
    return words.get(kind) or ""


def sample_instruction(rng: Random, kind: str, held_out: bool) -> Instruction:
    """A random instruction of a kind; with held_out its target is one that training never shows."""
    while True:
        case = MAKERS[kind](sample_source(rng, kind, held_out), rng)
        if is_new(case.target) == held_out or (held_out and kind in ("season", "clothes")):
            break
    new = _new_word(kind, case.target)
    article = "an" if new[:1] in tuple("aeiou") else "a"
    phrase = rng.choice(PHRASES[kind])
    return Instruction(phrase.format(new=new, a=article, thing=case.source.nouns[0].thing), case)
