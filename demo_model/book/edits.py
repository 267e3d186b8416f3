"""Edits of the picture book whose outcome is known: how they are made, and how they are scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from book.judge import Verdict, judge
from book.things import COLOURS, DRESSED, DYED, KINDS
from book.world import AUTUMNAL, SETTINGS, Noun, Prompt, is_held_out

GROWN = 6  # pixels around a thing that count as its own
OUTSIDE, THING = "outside", "thing"  # what an edit should leave as it is
SHARES = {  # of cross- and self-attention, chosen with benchmarks/shares.py
    "thing": (0.4, 0.6),
    "colour": (0.8, 0.6),
    "setting": (0.6, 0.4),
    "season": (0.6, 0.8),
    "clothes": (0.8, 0.6),
}
THRESHOLDS = {  # of the local blend, chosen likewise
    "thing": 0.3,
    "colour": 0.1,
    "setting": 0.1,
    "season": 0.1,
    "clothes": 0.15,
}


class Blend(NamedTuple):
    """A local blend: words of source and target whose region may change, less some words'."""

    source: str
    target: str
    subtract: str = ""
    threshold: float = 0.3


@dataclass(frozen=True)
class Case:
    """An edit: prompts before and after, shares of injection, what should stay.

    blend: None is none. scale: words and their factor. windows: word windows, one a line.
    """

    kind: str
    source: Prompt
    target: Prompt
    cross: float
    self_: float
    stays: str = OUTSIDE
    blend: Blend | None = None
    scale: tuple[str, float] | None = None
    windows: str = ""


class Score(NamedTuple):
    """success: the judge finds the target. kept: PSNR in dB of what should stay.

    structure: overlap (IoU) of the thing's region before and after.
    """

    success: bool
    kept: float
    structure: float


def shows(verdict: Verdict, prompt: Prompt) -> bool:
    """Whether a picture shows what a one-thing prompt says."""
    noun = prompt.nouns[0]
    return (
        verdict.thing == noun.thing
        and noun.colour in (None, verdict.colour)
        and prompt.setting in (None, verdict.setting)
        and (verdict.hat, verdict.scarf) == (noun.clothes == "hat", noun.clothes == "scarf")
        and (verdict.autumn, verdict.pencil) == (prompt.autumn, prompt.pencil)
    )


def grown(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) and GROWN pixels around it."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.filter(ImageFilter.MaxFilter(2 * GROWN + 1))) > 0


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of 8-bit pictures or parts of them, in dB; 99 if they are the same."""
    error = float(((a.astype(float) - b) ** 2).mean()) if a.size else 0.0
    return min(10 * float(np.log10(255**2 / max(error, 1e-9))), 99.0)


def score(source: np.ndarray, edited: np.ndarray, case: Case) -> Score:
    """Compare an edit, (H, W, 3) uint8, with its source and with what was asked for."""
    before, after = judge(source), judge(edited)
    region = before.mask if case.stays == THING else ~grown(before.mask | after.mask)
    union = (before.mask | after.mask).sum()
    overlap = float((before.mask & after.mask).sum() / max(union, 1))
    return Score(shows(after, case.target), psnr(source[region], edited[region]), overlap)


def adds_words(case: Case) -> bool:
    """Whether the target only adds words to the source."""
    words = iter(case.target.text.split())
    return all(word in words for word in case.source.text.split())


def case_of(kind: str, source: Prompt, target: Prompt) -> Case:
    """An edit of a kind, with the shares that fit it."""
    stays = THING if kind in ("setting", "season") else OUTSIDE
    return Case(kind, source, target, *SHARES[kind], stays)


def thing_swap(prompt: Prompt, rng: Random) -> Case:
    """Another animal, or another thing of the same colour."""
    noun = prompt.nouns[0]
    group = DYED if noun.thing in DYED else [k for k in KINDS if k not in DYED]
    other = rng.choice([kind for kind in group if kind != noun.thing])
    return case_of("thing", prompt, prompt.with_noun(thing=other))


def colour_swap(prompt: Prompt, rng: Random) -> Case:
    """Another colour."""
    colours = [colour for colour in COLOURS if colour != prompt.nouns[0].colour]
    return case_of("colour", prompt, prompt.with_noun(colour=rng.choice(colours)))


def setting_swap(prompt: Prompt, rng: Random) -> Case:
    """Another place: the thing should stay."""
    other = rng.choice([setting for setting in SETTINGS if setting != prompt.setting])
    return case_of("setting", prompt, prompt.with_setting(other))


def season(prompt: Prompt, _rng: Random) -> Case:
    """Autumn comes."""
    return case_of("season", prompt, replace(prompt, autumn=True))


def dressing(prompt: Prompt, rng: Random) -> Case:
    """A hat or a scarf."""
    return case_of("clothes", prompt, prompt.with_noun(clothes=rng.choice(("hat", "scarf"))))


def blended(case: Case) -> Case:
    """The case with a local blend on what it changes: the thing, or the place without the thing."""
    noun, new = case.source.nouns[0], case.target.nouns[0]
    threshold = THRESHOLDS[case.kind]
    if case.stays == THING:
        before, after = case.source.setting or "", case.target.setting or ""
        autumn = ", autumn" if case.target.autumn else ""
        return replace(case, blend=Blend(before, after + autumn, noun.thing, threshold))
    colours = (noun.colour, new.colour) if case.kind == "colour" else (None, None)
    words = ((colours[0], noun.thing), (colours[1], new.thing, new.clothes))
    named = (", ".join(word for word in side if word) for side in words)
    return replace(case, blend=Blend(*named, threshold=threshold))


EDITS: dict[str, tuple[Callable[[Prompt, Random], Case], tuple[str, ...]]] = {
    "thing": (thing_swap, tuple(KINDS)),
    "colour": (colour_swap, DYED),
    "setting": (setting_swap, tuple(KINDS)),
    "season": (season, tuple(KINDS)),
    "clothes": (dressing, DRESSED),
}


def cases(count: int, seed: int = 0, held_out: bool = True) -> list[Case]:
    """Edits, the kinds in turn, of prompts whose (thing, colour, setting) training never showed.

    Without held_out: of prompts that it did show.
    """
    rng, made = Random(seed), []
    while len(made) < count:
        make, kinds = EDITS[list(EDITS)[len(made) % len(EDITS)]]
        kind = rng.choice(kinds)
        colour = rng.choice(list(COLOURS)) if kind in DYED else None
        setting = rng.choice(AUTUMNAL if make is season else list(SETTINGS))
        if is_held_out(kind, colour, setting) == held_out:
            made.append(make(Prompt((Noun(kind, colour),), setting), rng))
    return made
