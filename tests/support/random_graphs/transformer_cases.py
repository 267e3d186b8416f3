"""Random graphs of transformers: edits, and prompts whose words have weights."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from scenes import Edit

from .cases import KEEPS, LONG, SAMPLERS, SCHEDULERS, SHARES, Blend, edits, some_words, texts
from .transformers import BESIDE, KINDS, MISREAD, OFTEN

LIKELY = (
    *("euler", "euler", "res_multistep", "er_sde", "lcm", "dpmpp_2m", "euler_ancestral", "heun"),
)
WORDS = (
    *("a", "red", "cat", "hat", "blurry", "on", "bench,", "café", "猫", "🐱", "3d", "1,000", "."),
    *(r"\(sic\)", r"\(", "well-known", "цвет", "[old]"),
)
SIMPLE = ("a", "the", "red", "blue", "cat", "dog", "elephant", "bench", "on", "猫", "🐱", "hat,")
WEIGHTS = ("1", "1.0", "0", "0.5", "1.3", "2", "-1", "-0.5", "+1.2", ".7")


@dataclass(frozen=True)
class Way:
    """How a graph is sampled. guider: KSampler or a guider. references: before the positive.

    company: names of ``transformers.BESIDE``, behind the pack's nodes or before them.
    """

    family: str
    height: int
    width: int
    batch: int
    sampler: str
    scheduler: str
    steps: int
    cfg: float
    denoise: float
    negative: str
    guider: str
    guidance: float
    masked: bool
    references: int
    company: tuple[str, ...]
    behind: bool


@dataclass(frozen=True)
class EditCase:
    """A graph with a controller. keep: what is kept of its source, "" for nothing."""

    way: Way
    source: str
    edits: tuple[tuple[Edit, Blend | None], ...]
    mode: str
    blocks: str
    maps: str
    keep: str


@dataclass(frozen=True)
class WeightCase:
    """A graph with P2P Prompt Weights. words: (as written, weight); none if the text is broken."""

    way: Way
    text: str
    words: tuple[tuple[str, float], ...]
    strength: float
    window: tuple[float, float]
    blocks: str
    acts_on: str
    queries: str


@st.composite
def company(draw: st.DrawFn) -> tuple[str, ...]:
    """Up to two companions, other than two which misread each other."""
    names = draw(st.lists(st.sampled_from(tuple(BESIDE)), max_size=2, unique=True))
    return tuple(names if set(names) != MISREAD else names[:1])


@st.composite
def ways(draw: st.DrawFn, families: tuple[str, ...], largest: int) -> Way:
    """largest: edge of the latent in patches."""
    family = draw(st.sampled_from(families))
    kind = KINDS[family]
    rest = draw(st.sampled_from([0, 0, 0, 1])) if kind.unit == 2 else 0  # sizes beside the patch
    guider = draw(st.sampled_from(["KSampler", "KSampler", "CFGGuider", "BasicGuider"]))
    return Way(
        family=family,
        height=kind.unit * draw(st.integers(3, largest)) + rest,
        width=kind.unit * draw(st.integers(3, largest)) + rest,
        batch=draw(st.sampled_from([1, 1, 1, 2])),
        sampler=draw(st.one_of(st.sampled_from(LIKELY), st.sampled_from(SAMPLERS))),
        scheduler=draw(
            st.one_of(st.sampled_from(["simple", "normal", "beta"]), st.sampled_from(SCHEDULERS))
        ),
        steps=draw(st.sampled_from([1, 2, 2, 3, 4, 4, 8])),
        cfg=1.0 if guider == "BasicGuider" else draw(st.sampled_from([1.0, 1.0, 2.5, 4.0])),
        denoise=draw(st.sampled_from([1.0, 1.0, 0.6])),
        negative=draw(st.sampled_from(["", "blurry", "a red cat", f"blurry{LONG}"])),
        guider=guider,
        guidance=draw(st.sampled_from([0.0, 0.0, 2.0])),
        masked=draw(st.integers(0, 5)) == 5,
        references=draw(st.sampled_from([0, 0, 1, 2])) if kind.references else 0,
        company=draw(company()),
        behind=draw(st.booleans()),
    )


@st.composite
def edit_cases(draw: st.DrawFn, families: tuple[str, ...] = OFTEN, largest: int = 7) -> EditCase:
    simple = st.lists(st.sampled_from(SIMPLE), min_size=1, max_size=8).map(" ".join)
    source = draw(st.integers(0, 2).flatmap(lambda n: texts() if n == 0 else simple))
    return EditCase(
        way=draw(ways(families, largest)),
        source=source,
        edits=tuple(draw(st.lists(edits(source), min_size=1, max_size=3))),
        mode=draw(st.sampled_from(["auto", "qk", "hybrid", "hybrid"])),
        blocks=draw(st.sampled_from(["", "", "", "", "0", "1", "0-1"])),
        maps=draw(some_words(source)) if draw(st.integers(0, 3)) == 3 else "",
        keep=draw(KEEPS),
    )


@st.composite
def groups(draw: st.DrawFn, outer: float, depth: int) -> tuple[str, list[tuple[str, float]]]:
    """A bracket: how it is written, and its words with their weights."""
    number = draw(st.sampled_from([None, *WEIGHTS]))
    weight = outer * 1.1 if number is None else float(number)
    parts, words = [], []
    for _ in range(draw(st.integers(1, 3))):
        if depth and draw(st.integers(0, 2)) == 0:
            part, inner = draw(groups(weight, depth - 1))
        else:
            part = draw(st.sampled_from(WORDS))
            inner = [(part, weight)]
        parts.append(part)
        words += inner
    return f"({' '.join(parts)}{'' if number is None else ':' + number})", words


@st.composite
def weighted_texts(draw: st.DrawFn) -> tuple[str, tuple[tuple[str, float], ...]]:
    """A prompt with weights, and its words; now and then with a bracket too many or too few."""
    parts, words = [], []
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            part, inner = draw(groups(1.0, 2))
        else:
            part = draw(st.sampled_from(WORDS))
            inner = [(part, 1.0)]
        parts.append(part)
        words += inner
    text = " ".join(parts)
    if draw(st.integers(0, 6)) == 6:
        place, odd = draw(st.integers(0, len(text))), draw(st.sampled_from("():\\"))
        return text[:place] + odd + text[place + draw(st.integers(0, 1)) :], ()
    if draw(st.integers(0, 9)) == 9:
        return text + LONG, (*words, (LONG.strip(), 1.0))
    return text, tuple(words)


@st.composite
def weight_cases(
    draw: st.DrawFn, families: tuple[str, ...] = OFTEN, largest: int = 7
) -> WeightCase:
    text, words = draw(weighted_texts())
    start, end = sorted(draw(st.tuples(SHARES, SHARES)))
    whole = draw(st.integers(0, 2)) > 0
    return WeightCase(
        way=draw(ways(families, largest)),
        text=text,
        words=words,
        strength=draw(st.sampled_from([1.0, 1.0, 1.0, 0.0, 0.5, 2.0, 4.0])),
        window=(0.0, 1.0) if whole else (start, end),
        blocks=draw(st.sampled_from(["", "", "", "0", "1", "0-1", "7"])),
        acts_on=draw(st.sampled_from(["values", "values", "scores"])),
        queries=draw(st.sampled_from(["all", "image"])),
    )


def transformer_cases(
    families: tuple[str, ...] = OFTEN, largest: int = 7
) -> st.SearchStrategy[EditCase | WeightCase]:
    edited, weighed = edit_cases(families, largest), weight_cases(families, largest)
    return st.integers(0, 2).flatmap(lambda n: weighed if n == 0 else edited)
