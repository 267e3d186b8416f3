"""The paper's figures (arXiv:2208.01626, 2211.09794) on the picture book, one file each.

`python -m book.figures --out folder` (in `demo_model/`). Under every edit stands the PSNR of what
should stay: the picture outside the things, or the thing where the place changes. The second row
is the target prompt from the same seed without control (for a word's strength: its weight in the
host's own spelling). Of the first seeds the one is shown with most edits that the judge finds
right, and the first of those.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from book.edits import OUTSIDE, THING, Case, Score, blended, case_of, score, shows
from book.judge import judge
from book.networks import CONFIG
from book.studio import InstructStudio, Studio
from book.world import IMAGE_SIZE, Noun, Prompt, Scene, Thing, render

CAT = Prompt((Noun("cat"),), "grass")
HOUSE = Prompt((Noun("house"),), "grass")
CAR = Prompt((Noun("car", "red"),), "city")
DOG = Prompt((Noun("dog"),), "beach")
LION = Prompt((Noun("lion"),), "grass")
FOX = Prompt((Noun("fox"),), "city")
CACTUS = Prompt((Noun("cactus"),), "grass")
PENGUIN = Prompt((Noun("penguin"),), "snow")


@dataclass(frozen=True)
class Panel:
    """One picture of a sheet and what stands under it."""

    picture: np.ndarray
    text: str
    decibels: float | None = None
    what: str = OUTSIDE


def things(prompt: Prompt, *names: str) -> list[Case]:
    """Other things in the same place."""
    return [case_of("thing", prompt, prompt.with_noun(thing=name)) for name in names]


def places(prompt: Prompt, *settings: str) -> list[Case]:
    """The same thing in other places."""
    moved = [prompt.with_setting(setting) for setting in settings]
    return [case_of("setting", prompt, target) for target in moved]


def colours(prompt: Prompt, *names: str) -> list[Case]:
    """The same thing in other colours."""
    return [case_of("colour", prompt, prompt.with_noun(colour=name)) for name in names]


def dressings(prompt: Prompt) -> list[Case]:
    """The same animal with a hat, and with a scarf."""
    return [
        case_of("clothes", prompt, prompt.with_noun(clothes=clothes))
        for clothes in ("hat", "scarf")
    ]


def fader(prompt: Prompt, word: str) -> list[Case]:
    """A word of the prompt from −2 to 3 times its attention (figure 9)."""
    scales = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
    return [Case("fader", prompt, prompt, 0.8, 0.4, scale=(word, scale)) for scale in scales]


def shares(prompt: Prompt, thing: str) -> list[Case]:
    """The same swap with more and more injection (figure 6)."""
    target = prompt.with_noun(thing=thing)
    return [Case("thing", prompt, target, s, s / 2) for s in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]


def preserved(prompt: Prompt, *settings: str) -> list[Case]:
    """Only the thing's own attention is injected (figure 5)."""
    window = f"{prompt.nouns[0].thing}: 0-0.8"
    moved = [prompt.with_setting(setting) for setting in settings]
    return [Case("setting", prompt, t, 0.0, 0.0, THING, windows=window) for t in moved]


def seasons(prompt: Prompt) -> list[Case]:
    """Autumn comes."""
    return [case_of("season", prompt, replace(prompt, autumn=True))]


def with_and_without(case: Case) -> list[Case]:
    """An edit without and with a local blend."""
    return [case, blended(case)]


# name: groups of cases that share a source, whether to show the second row
FIGURES: dict[str, tuple[list[list[Case]], bool]] = {
    "swap": ([things(CAT, "dog", "rabbit", "pig", "lion")], True),
    "colour": ([colours(CAR, "blue", "yellow", "green", "pink")], True),
    "setting": ([places(HOUSE, "snow", "night", "sunset", "beach")], True),
    "season": ([seasons(prompt) for prompt in (HOUSE, FOX, CACTUS)], True),
    "refine": ([dressings(LION), dressings(PENGUIN)], True),
    "fader": ([fader(DOG.with_noun(clothes="hat"), "hat")], True),
    "share": ([shares(CAT, "rabbit")], False),
    "words": ([preserved(LION, "snow", "beach", "night", "city")], True),
    "blend": ([with_and_without(things(DOG, "panda")[0])], True),
}


def attempt(studio: Studio, cases: list[Case], seed: int) -> tuple[np.ndarray, int]:
    """Source and edits from a seed, and how many of them show what they should."""
    pictures = studio.pictures(cases, seed)
    goals = [cases[0].source, *(case.target for case in cases)]
    right = [shows(judge(p), goal) for p, goal in zip(pictures, goals, strict=True)]
    return pictures, sum(right) + 2 * right[0]


def uncontrolled(studio: Studio, case: Case, seed: int) -> np.ndarray:
    """The target prompt's picture from the same seed; a word's strength in the host's spelling."""
    words, scale = case.scale or ("", 1.0)
    text = case.target.text.replace(words, f"({words}:{scale:g})") if words else case.target.text
    return studio.free(text, seed)


def figure(studio: Studio, cases: list[Case], below: bool, seeds: int) -> list[list[Panel]]:
    """Rows of panels: source and edits, and the same without control."""
    tried = [(attempt(studio, cases, seed), seed) for seed in range(seeds)]
    (pictures, _), seed = max(tried, key=lambda one: (one[0][1], -one[1]))
    source = pictures[0]

    def panel(picture: np.ndarray, case: Case, controlled: bool = True) -> Panel:
        scale = f"{case.scale[0]}, scale {case.scale[1]:g}" if case.scale else ""
        share = f"share {case.cross:g}" if len({c.cross for c in cases}) > 1 else ""
        blend = "blend: " if case.blend and controlled else ""
        text = scale or share or blend + case.target.text
        return Panel(picture, text, score(source, picture, case).kept, case.stays)

    first = [Panel(source, cases[0].source.text)]
    rows = [first + [panel(p, case) for p, case in zip(pictures[1:], cases, strict=True)]]
    if below:
        free = [panel(uncontrolled(studio, case, seed), case, False) for case in cases]
        rows.append([Panel(source, "same seed, no control"), *free])
    return rows


PHOTOGRAPHS = [
    (Scene((Thing("cat", None, None, None, 70, 112, 66),), "beach", horizon=78, extras=4),
     things(CAT.with_setting("beach"), "dog")[0]),
    (Scene((Thing("car", "red", None, None, 58, 116, 70),), "snow", horizon=74, extras=8),
     colours(CAR.with_setting("snow"), "blue")[0]),
    (Scene((Thing("dog", None, None, None, 62, 114, 62),), "city", horizon=80, extras=3),
     dressings(DOG.with_setting("city"))[0]),
]  # fmt: skip


@torch.inference_mode()
def photograph(studio: Studio, scene: Scene, case: Case) -> list[Panel]:
    """A painted photograph, and its edit after every kind of inversion."""
    photo = render(scene)
    positive = studio.text(case.source.text)
    inversion, start, _ = studio.pack.invert(
        studio.model, positive, studio.encoded(photo), studio.steps
    )
    null_model, null, _ = studio.pack.node(
        "P2PNullTextOptimize", model=studio.model, inversion=inversion, cfg=studio.cfg,
        positive=positive, negative=studio.text(""), inner_steps=10, learning_rate=1e-2,
        early_stop=1e-5,
    )  # fmt: skip
    panels = [Panel(photo, "photograph")]
    free = studio.sample(studio.model, studio.text(case.target.text), start, 0, disable_noise=True)[
        0
    ]
    panels.append(Panel(free, "inverted, no control", score(photo, free, case).kept))
    methods: dict[str, tuple] = {
        "DDIM": (studio.model, studio.text(""), None),
        "null-text": (null_model, null, None),
        "direct": (studio.model, studio.text(""), inversion),
    }
    for name, (model, negative, pinned) in methods.items():
        run = studio.pack.control(model, start, [studio.edit(case)], pinned)
        picture = studio.sample(
            run.model, run.positive, run.latent, 0, negative=negative, disable_noise=True
        )
        result: Score = score(photo, picture[1], case)
        panels.append(Panel(picture[1], f"{name}: {case.target.text}", result.kept))
    return panels


def instructed() -> list[tuple[Scene, list[tuple[str, Case]]]]:
    """Photographs, and what is asked for with the edit that it means."""
    cat = Scene((Thing("cat", None, None, None, 62, 112, 66),), "grass", horizon=78, extras=4)
    car = Scene((Thing("car", "red", None, None, 66, 116, 70),), "city", horizon=74, extras=8)
    of_cat = [*things(CAT, "dog"), *places(CAT, "snow"), *seasons(CAT), dressings(CAT)[0]]
    of_car = [*colours(CAR, "blue", "yellow"), *places(CAR, "beach"), *seasons(CAR)]
    say = ("turn it into a dog", "put it in the snow", "make it autumn", "put a hat on it")
    ask = ("make it blue", "paint it yellow", "put it on the beach", "make it autumn")
    return [
        (cat, list(zip(say, of_cat, strict=True))),
        (car, list(zip(ask, of_car, strict=True))),
    ]


def follow(studio: InstructStudio, scene: Scene, asked: list[tuple[str, Case]]) -> list[Panel]:
    """A painted photograph, and what every instruction makes of it."""
    photo = render(scene)
    panels = [Panel(photo, "photograph")]
    for text, case in asked:
        picture = studio.follow(photo, text, 0)
        panels.append(Panel(picture, text, score(photo, picture, case).kept, case.stays))
    return panels


def draw(rows: list[list[Panel]]) -> Image.Image:
    """A sheet of panels with their captions."""
    side, line = IMAGE_SIZE + 6, 40
    page = Image.new("RGB", (len(rows[0]) * side + 6, len(rows) * (side + line)), "white")
    pen = ImageDraw.Draw(page)
    for y, row in enumerate(rows):
        for x, panel in enumerate(row):
            at = (6 + x * side, 4 + y * (side + line))
            page.paste(Image.fromarray(panel.picture), at)
            lines = [""]
            for word in panel.text.split():
                if len(lines[-1]) + len(word) > 20:
                    lines.append("")
                lines[-1] = f"{lines[-1]} {word}".strip()
            if panel.decibels is not None:
                lines = [*lines[:2], f"{panel.what} {panel.decibels:.1f} dB"]
            pen.multiline_text(
                (at[0], at[1] + IMAGE_SIZE), "\n".join(lines[:3]), "black", spacing=1
            )
    return page


def joined(groups: list[list[list[Panel]]]) -> list[list[Panel]]:
    """Rows of panels side by side."""
    return [sum(parts, []) for parts in zip(*groups, strict=True)]


def made(studio: Studio, name: str, seeds: int) -> list[list[Panel]]:
    """The rows of one figure."""
    if name == "instruct":
        instructor = InstructStudio()
        return [follow(instructor, scene, asked) for scene, asked in instructed()]
    if name == "photo":
        return [photograph(studio, scene, case) for scene, case in PHOTOGRAPHS]
    groups, below = FIGURES[name]
    return joined([figure(studio, cases, below, seeds) for cases in groups])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = (*FIGURES, "photo", "instruct")
    parser.add_argument("--weights", type=Path, default=CONFIG.WEIGHTS_PATH)
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger().setLevel(logging.INFO)
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    studio = Studio(args.weights)
    for name in args.only:
        rows = made(studio, name, args.seeds)
        draw(rows).save(args.out / f"{name}.jpg", quality=92)
        for row in rows:
            kept = [f"{p.decibels:.1f}" for p in row if p.decibels is not None]
            logging.info("%-8s %s", name, " ".join(kept))


if __name__ == "__main__":
    main()
