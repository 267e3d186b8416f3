"""The painted world of the demo model: scenes, their pictures and their captions.

A scene is one or two flat shapes on a coloured background. The same structured
data gives the picture (`render`) and the caption (`Prompt.text`), so a benchmark
that edits a prompt always knows what the edited picture should show.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageDraw

IMAGE_SIZE = 128
SUPERSAMPLING = 4
TEXTURE_PERIOD = 16  # pixels; two latent cells

RGB = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond")
COLOURS: dict[str, RGB] = {
    "red": (214, 39, 40),
    "orange": (247, 142, 30),
    "yellow": (250, 221, 60),
    "green": (44, 150, 66),
    "blue": (38, 84, 206),
    "purple": (126, 50, 166),
    "pink": (246, 150, 190),
    "brown": (121, 72, 38),
    "black": (24, 24, 28),
    "white": (246, 246, 246),
}
BACKGROUNDS: dict[str, RGB] = {
    **{name: rgb for name, rgb in COLOURS.items() if name != "brown"},
    "gray": (130, 132, 136),
    "cyan": (70, 202, 212),
}
TEXTURES = ("striped",)
TEXTURE_SHARE = 0.3
SIZES: dict[str, tuple[float, float]] = {"small": (23, 26), "big": (47, 54)}
MEDIUM_SIZE = (33.0, 41.0)
PAIR_SIZES: dict[str, tuple[float, float]] = {"small": (14, 17), "big": (26, 29)}
PAIR_MEDIUM_SIZE = (19.0, 24.0)
POSITIONS = {
    "on the left": (-1, 0),
    "on the right": (1, 0),
    "at the top": (0, -1),
    "at the bottom": (0, 1),
}


@dataclass(frozen=True)
class Noun:
    """One object of a prompt; an attribute that is None is not named."""

    shape: str
    colour: str | None = None
    texture: str | None = None
    size: str | None = None
    position: str | None = None
    colour_first: bool = False

    @property
    def text(self) -> str:
        """The noun phrase, such as 'a big striped red circle on the left'."""
        adjectives = [self.texture, self.colour]
        if self.colour_first:
            adjectives.reverse()
        words = [word for word in (self.size, *adjectives, self.shape) if word]
        article = "an" if words[0][0] in "aeiou" else "a"
        place = [self.position] if self.position else []
        return " ".join([article, *words, *place])


@dataclass(frozen=True)
class Prompt:
    """A caption as data; `dataclasses.replace` and the `with_*` helpers edit it."""

    nouns: tuple[Noun, ...]
    background: str | None = None
    painting: bool = False

    @property
    def text(self) -> str:
        """The caption, such as 'a red circle and a blue star on a green background'."""
        text = " and ".join(noun.text for noun in self.nouns)
        if self.background:
            article = "an" if self.background[0] in "aeiou" else "a"
            text = f"{text} on {article} {self.background} background"
        return f"a painting of {text}" if self.painting else text

    def with_noun(self, index: int = 0, **changes: str | None) -> Prompt:
        """The same prompt with attributes of one object changed."""
        nouns = list(self.nouns)
        nouns[index] = dataclasses.replace(nouns[index], **changes)
        return dataclasses.replace(self, nouns=tuple(nouns))

    def with_background(self, background: str | None) -> Prompt:
        """The same prompt on another background."""
        return dataclasses.replace(self, background=background)


@dataclass(frozen=True)
class Thing:
    """One painted object: what it is, and its centre and half extent in pixels."""

    shape: str
    colour: str
    texture: str | None
    size: str | None
    position: str | None
    x: float
    y: float
    radius: float
    shift: RGB = (0, 0, 0)


@dataclass(frozen=True)
class Scene:
    """What a picture shows: one object, or two from left to right."""

    things: tuple[Thing, ...]
    background: str
    shift: RGB = (0, 0, 0)


def is_held_out(shape: str, colour: str, background: str) -> bool:
    """True for the eighth of all (shape, colour, background) that training never shows."""
    index = SHAPES.index(shape) + 3 * list(COLOURS).index(colour)
    return (index + 5 * list(BACKGROUNDS).index(background)) % 8 == 0


def shade(rgb: RGB) -> RGB:
    """The colour of stripes: half way to black, or to white on dark colours."""
    luma = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
    goal = 0 if luma > 92 else 255
    return tuple(round((channel + goal) / 2) for channel in rgb)  # type: ignore[return-value]


def unit_polygon(shape: str) -> list[tuple[float, float]]:
    """Outline of a shape inside [-1, 1]², y pointing down; rings are filled here."""
    if shape == "square":
        return [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]
    if shape == "triangle":
        return [(0, -0.92), (1, 0.86), (-1, 0.86)]
    if shape == "diamond":
        return [(0, -1), (0.72, 0), (0, 1), (-0.72, 0)]
    if shape == "cross":
        a, b = 0.36, 0.95
        return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a),
                (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]  # fmt: skip
    turns = [2 * math.pi * i / 96 for i in range(96)]
    if shape == "star":
        radii = itertools.cycle((1.08, 0.46))
        angles = [math.pi * i / 5 - math.pi / 2 for i in range(10)]
        return [
            (r * math.cos(t), r * math.sin(t) + 0.08) for t, r in zip(angles, radii, strict=False)
        ]
    if shape == "heart":
        return [
            (
                math.sin(t) ** 3,
                -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
                / 15
                - 0.16,
            )
            for t in turns
        ]
    if shape in ("circle", "ring"):
        return [(0.98 * math.cos(t), 0.98 * math.sin(t)) for t in turns]
    raise ValueError(f"Unknown shape {shape!r}. The shapes are: {', '.join(SHAPES)}.")


def shape_mask(
    shape: str, x: float, y: float, radius: float, size: int = IMAGE_SIZE
) -> Image.Image:
    """Anti-aliased mask of one shape: an 8-bit image of size × size pixels."""
    scale = SUPERSAMPLING
    mask = Image.new("L", (size * scale, size * scale))
    draw = ImageDraw.Draw(mask)
    draw.polygon(
        [((x + px * radius) * scale, (y + py * radius) * scale) for px, py in unit_polygon(shape)],
        fill=255,
    )
    if shape == "ring":
        hole = 0.5 * radius * scale
        draw.ellipse(
            (x * scale - hole, y * scale - hole, x * scale + hole, y * scale + hole), fill=0
        )
    return mask.reduce(scale)


def texture_mask(thing: Thing) -> Image.Image:
    """Anti-aliased mask of a thing's stripes over the whole picture."""
    scale, period = SUPERSAMPLING, TEXTURE_PERIOD
    mask = Image.new("L", (IMAGE_SIZE * scale, IMAGE_SIZE * scale))
    draw = ImageDraw.Draw(mask)
    for row in range(-5, 6):
        y = (thing.y + row * period) * scale
        draw.rectangle((0, y - 3.5 * scale, IMAGE_SIZE * scale, y + 3.5 * scale), fill=255)
    return mask.reduce(scale)


def _shifted(rgb: RGB, shift: RGB) -> RGB:
    return tuple(  # type: ignore[return-value]
        min(255, max(0, c + s)) for c, s in zip(rgb, shift, strict=True)
    )


def render(scene: Scene) -> np.ndarray:
    """Paint a scene: (IMAGE_SIZE, IMAGE_SIZE, 3) uint8."""
    image = Image.new(
        "RGB", (IMAGE_SIZE, IMAGE_SIZE), _shifted(BACKGROUNDS[scene.background], scene.shift)
    )
    for thing in scene.things:
        paint = _shifted(COLOURS[thing.colour], thing.shift)
        brush = Image.new("RGB", image.size, paint)
        if thing.texture:
            brush.paste(shade(paint), (0, 0), texture_mask(thing))
        image.paste(brush, (0, 0), shape_mask(thing.shape, thing.x, thing.y, thing.radius))
    return np.asarray(image)


def _jitter(rng: Random) -> RGB:
    return tuple(rng.randint(-5, 5) for _ in range(3))  # type: ignore[return-value]


def _sample_thing(rng: Random, column: int | None) -> Thing:
    """One random object; column None puts it anywhere, 0 or 1 in that half of the picture."""
    pair = column is not None
    size = rng.choice((None, None, None, "small", "big"))
    low, high = (
        (PAIR_SIZES if pair else SIZES)[size] if size else PAIR_MEDIUM_SIZE if pair else MEDIUM_SIZE
    )
    radius = rng.uniform(low, high)
    position = None
    middle = IMAGE_SIZE / 2
    if pair:
        x = IMAGE_SIZE * (0.26 if column == 0 else 0.74) + rng.uniform(-2, 2)
        y = middle + rng.uniform(-16, 16)
    else:
        room = middle - radius - 6  # keeps the border of the picture free
        x, y = middle + rng.uniform(-room, room), middle + rng.uniform(-room, room)
        if size != "big" and rng.random() < 0.3:
            position = rng.choice(list(POSITIONS))
            dx, dy = POSITIONS[position]
            x = middle + dx * room * rng.uniform(0.75, 1) if dx else middle + rng.uniform(-4, 4)
            y = middle + dy * room * rng.uniform(0.75, 1) if dy else middle + rng.uniform(-4, 4)
    texture = rng.choice(TEXTURES) if rng.random() < TEXTURE_SHARE else None
    return Thing(
        rng.choice(SHAPES), rng.choice(list(COLOURS)), texture, size, position, x, y, radius,
        _jitter(rng),
    )  # fmt: skip


def _is_clear(thing: Thing, background: str) -> bool:
    """True when the thing and its texture stand out from the background, and it is not held out."""
    if thing.colour == background or is_held_out(thing.shape, thing.colour, background):
        return False
    tint = shade(COLOURS[thing.colour])
    return not thing.texture or math.dist(tint, BACKGROUNDS[background]) > 70


def sample_scene(rng: Random, pair_share: float = 0.2) -> Scene:
    """A random scene of the training world; held-out combinations never appear."""
    columns: Sequence[int | None] = (0, 1) if rng.random() < pair_share else (None,)
    background = rng.choice(list(BACKGROUNDS))
    things = []
    for column in columns:
        thing = _sample_thing(rng, column)
        while not _is_clear(thing, background):
            thing = _sample_thing(rng, column)
        things.append(thing)
    return Scene(tuple(things), background, _jitter(rng))


def describe(scene: Scene, rng: Random) -> Prompt:
    """A caption of the scene; colours, sizes and the background are left out now and then."""
    nouns = tuple(
        Noun(
            thing.shape,
            thing.colour if rng.random() < 0.87 else None,
            thing.texture,
            thing.size,
            thing.position if rng.random() < 0.9 else None,
            rng.random() < 0.25,
        )
        for thing in scene.things
    )
    background = scene.background if rng.random() < 0.87 else None
    return Prompt(nouns, background, rng.random() < 0.06)


def held_out_prompts(count: int, seed: int = 0) -> list[Prompt]:
    """Plain one-object prompts whose (shape, colour, background) training never showed."""
    combinations = [
        (shape, colour, background)
        for shape, colour, background in itertools.product(SHAPES, COLOURS, BACKGROUNDS)
        if colour != background and is_held_out(shape, colour, background)
    ]
    Random(seed).shuffle(combinations)
    return [
        Prompt((Noun(shape, colour),), background)
        for shape, colour, background in itertools.islice(itertools.cycle(combinations), count)
    ]
