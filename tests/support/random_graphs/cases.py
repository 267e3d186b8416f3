"""What a random graph is made of, drawn by hypothesis."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.samplers
from companions import COMPANIONS
from companions.companion import RESULT, ksampler
from hypothesis import strategies as st
from scenes import Edit

FAMILIES = ("sd1", "sd2, v", "ssd", "sd1 inpainting", "sd2", "sdxl")
OFTEN = ("sd1", "sd1", "sd1", "sd2, v", "sd2, v", "ssd")
SAMPLERS = tuple(comfy.samplers.SAMPLER_NAMES)
SCHEDULERS = tuple(comfy.samplers.SCHEDULER_NAMES)
WORDS = (
    *("a", "a", "the", "red", "blue", "cat", "dog", "bench", "hat", "photo", "of", "on", "in"),
    *("supercalifragilistic", "cat's", "1,000", "3d", "well-known", "naïve", "café", "猫", "🐱"),
    *("(red:1.3)", "[old]", "((big))", "(a blue hat:0.7)", r"\(sic\)", "cat,", "dog.", "AND"),
    *("--", "...", "embedding:none", "<lora:x:1>", "цвет", "قطة", "e\u0301", "!!!"),
)  # fmt: skip
LONG = " under very old trees, with leaves and a fountain" * 9
BESIDE = tuple(
    name
    for name, companion in COMPANIONS.items()
    if companion.expected == RESULT
    and companion.load is None
    and companion.sample is ksampler
    and not companion.settings
    and not companion.families
    and name != "a LoRA on the text encoder"
)


@dataclass(frozen=True)
class Blend:
    source_words: str
    target_words: str
    subtract_words: str
    threshold: float
    start_blend: float


@dataclass(frozen=True)
class Case:
    """A graph. inversion: "", "ddim" or "noise". company: names of companions.

    keep: what is kept of its source, "" for nothing.
    """

    family: str
    source: str
    edits: tuple[tuple[Edit, Blend | None], ...]
    width: int
    height: int
    batch: int
    sampler: str
    scheduler: str
    steps: int
    cfg: float
    denoise: float
    negative: str
    inversion: str
    maps: str
    company: tuple[str, ...]
    keep: str


def texts(most: int = 9) -> st.SearchStrategy[str]:
    """Prompts: words of every kind, sometimes more than a text encoder reads at once."""
    words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=most).map(" ".join)
    odd = st.sampled_from(["", "   ", ",", "a,,b", "(", "a (b", "a) b", "cat" * 30, "\n"])
    return st.integers(0, 19).flatmap(
        lambda n: odd if n == 13 else words.map(lambda t: t + LONG) if n == 1 else words
    )


@st.composite
def changed(draw: st.DrawFn, source: str) -> str:
    """A target prompt: some words replaced, taken out, put in; or another prompt."""
    how = draw(st.integers(0, 9))
    if how == 0:
        return source
    if how == 1:
        return draw(texts())
    words = source.split()
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, max(len(words) - 1, 0)))
        kind = draw(st.sampled_from(["replace", "replace", "insert", "remove"]))
        new = [] if kind == "remove" else [draw(st.sampled_from(WORDS))]
        words[place : place + (kind != "insert")] = new
    return " ".join(words)


KEEPS = st.sampled_from(["", "", "", "full", "light"])
SHARES = st.sampled_from([0.0, 0.0, 0.2, 0.4, 0.5, 0.8, 1.0])


@st.composite
def some_words(draw: st.DrawFn, prompt: str) -> str:
    """Words of a prompt, rarely one that it does not have."""
    if draw(st.integers(0, 39)) == 0:
        return draw(st.sampled_from(["zebra", "", "red cat", ","]))
    words = [word for word in prompt.split() if "," not in word and ":" not in word] or ["cat"]
    return ", ".join(draw(st.lists(st.sampled_from(words), min_size=1, max_size=2)))


@st.composite
def edits(draw: st.DrawFn, source: str) -> tuple[Edit, Blend | None]:
    kind = draw(st.sampled_from(["swap", "swap", "refine", "reweight"]))
    scale = st.sampled_from([-3.0, 0.0, 0.5, 1.0, 2.0, 10.0])
    target = source if kind == "reweight" else draw(changed(source))
    count = draw(st.integers(1 if kind == "reweight" else 0, 2 if kind == "reweight" else 1))
    scales = tuple((draw(some_words(target)), draw(scale)) for _ in range(count))
    lines = []
    if kind != "reweight" and draw(st.integers(0, 3)) == 3:
        start, end = sorted(draw(st.tuples(SHARES, SHARES)))
        lines = [f"{draw(some_words(target))}: {start}-{end}"]
    edit = Edit(kind, target, source, draw(SHARES), draw(SHARES), "\n".join(lines), scales)
    if draw(st.integers(0, 4)) != 4:
        return edit, None
    blend = Blend(
        draw(some_words(source)), draw(some_words(target)),
        draw(some_words(target)) if draw(st.integers(0, 4)) == 0 else "",
        draw(st.sampled_from([0.1, 0.3, 0.6])), draw(SHARES),
    )  # fmt: skip
    return edit, blend


@st.composite
def cases(draw: st.DrawFn, families: tuple[str, ...] = OFTEN, largest: int = 20) -> Case:
    """largest: edge of the latent."""
    source = draw(texts())
    inversion = draw(st.sampled_from(["", "", "", "ddim", "noise"]))
    likely = st.sampled_from(["euler", "dpmpp_2m", "heun", "ddim", "res_multistep"])
    return Case(
        family=draw(st.sampled_from(families)),
        source=source,
        edits=tuple(draw(st.lists(edits(source), min_size=1, max_size=3))),
        width=8 * draw(st.integers(8, largest)),
        height=8 * draw(st.integers(8, largest)),
        batch=draw(st.sampled_from([1, 1, 1, 2])),
        sampler=draw(
            likely if inversion and draw(st.integers(0, 4)) else st.sampled_from(SAMPLERS)
        ),
        scheduler=draw(st.one_of(st.just("normal"), st.sampled_from(SCHEDULERS))),
        steps=draw(st.integers(1, 4)),
        cfg=draw(st.sampled_from([1.0, 1.0, 2.5, 4.0, 7.5])),
        denoise=draw(st.sampled_from([1.0, 1.0, 1.0 if inversion == "ddim" else 0.6])),
        negative=draw(st.sampled_from(["", "blurry", f"blurry{LONG}"])),
        inversion=inversion,
        maps=draw(some_words(source)) if draw(st.integers(0, 3)) == 3 else "",
        company=tuple(draw(st.lists(st.sampled_from(BESIDE), max_size=2, unique=True))),
        keep=draw(KEEPS),
    )
