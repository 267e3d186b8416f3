"""Scenes of the picture book: their pictures, their masks, their captions.

The same structured data gives the picture (`render`) and the caption (`Prompt.text`), so that
a program that edits a prompt always knows what the edited picture should show.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from book.scenery import PLACES, pencil
from book.sprites import scaled_sprite
from book.things import COLOURS, DRESSED, DYED, KINDS

IMAGE_SIZE = 128
SETTINGS: dict[str, tuple[str, str]] = {  # usual words, other words
    "grass": ("on the grass", "in the grass"),
    "beach": ("on the beach", "at the beach"),
    "snow": ("in the snow", "on the snow"),
    "night": ("at night", "in the night"),
    "sunset": ("at sunset", "in the sunset"),
    "water": ("under water", "in the water"),
    "room": ("in a room", "in the room"),
    "city": ("in the city", "in a city"),
}
AUTUMNAL = ("grass", "city")
CLOTHES = {"hat": ("wearing a hat", "with a hat"), "scarf": ("wearing a scarf", "with a scarf")}
SIDES = {"left": "on the left", "right": "on the right"}
PENCIL = "a pencil drawing of"
SYNONYMS = {"rabbit": "bunny", "burger": "hamburger", "shirt": "t-shirt", "big": "large"}
SIZES = {"small": (32, 40), "big": (84, 96)}  # pixels of the longer side
MEDIUM_SIZE = (46, 78)
PAIR_SIZE = (42, 58)


@dataclass(frozen=True)
class Noun:
    """One thing of a prompt; what is None is not named."""

    thing: str
    colour: str | None = None
    size: str | None = None
    clothes: str | None = None
    definite: bool = False
    plain_words: bool = True  # no synonyms

    @property
    def text(self) -> str:
        """The noun phrase, such as 'a small blue fish' or 'a cat wearing a hat'."""
        words = [word for word in (self.size, self.colour, self.thing) if word]
        if not self.plain_words:
            words = [SYNONYMS.get(word, word) for word in words]
        article = "the" if self.definite else "an" if words[0][0] in "aeiou" else "a"
        clothes = [CLOTHES[self.clothes][0 if self.plain_words else 1]] if self.clothes else []
        return " ".join([article, *words, *clothes])


@dataclass(frozen=True)
class Prompt:
    """A caption as data; `dataclasses.replace` and the `with_*` helpers edit it."""

    nouns: tuple[Noun, ...]
    setting: str | None = None
    autumn: bool = False
    pencil: bool = False
    side: str | None = None
    usual: bool = True  # the usual words for the setting

    @property
    def text(self) -> str:
        """The caption, such as 'a cat and a dog on the grass in autumn'."""
        parts = [PENCIL] if self.pencil else []
        parts.append(" and ".join(noun.text for noun in self.nouns))
        if self.side:
            parts.append(SIDES[self.side])
        if self.setting:
            parts.append(SETTINGS[self.setting][0 if self.usual else 1])
        if self.autumn:
            parts.append("in autumn")
        return " ".join(parts)

    def with_noun(self, index: int = 0, **changes: str | None) -> Prompt:
        """The same prompt with attributes of one thing changed."""
        nouns = list(self.nouns)
        nouns[index] = dataclasses.replace(nouns[index], **changes)  # type: ignore[arg-type]
        return dataclasses.replace(self, nouns=tuple(nouns))

    def with_setting(self, setting: str | None) -> Prompt:
        """The same prompt in another place."""
        return dataclasses.replace(self, setting=setting)


@dataclass(frozen=True)
class Thing:
    """One painted thing: x of its middle and y of its foot, and its longer side, in pixels."""

    kind: str
    colour: str | None
    size: str | None
    clothes: str | None
    x: float
    y: float
    side: int
    mirrored: bool = False


@dataclass(frozen=True)
class Scene:
    """What a picture shows: one thing, or two from left to right; `extras` seeds the rest."""

    things: tuple[Thing, ...]
    setting: str
    autumn: bool = False
    pencil: bool = False
    place: str | None = None
    horizon: float = 80.0
    extras: int = 0


def default_colour(kind: str) -> str | None:
    """The colour that the noun alone means; None where the thing is never recoloured."""
    return KINDS[kind].colour


def is_held_out(thing: str, colour: str | None, setting: str) -> bool:
    """True for the eighth of all (thing, colour, setting) that training never shows."""
    index = list(KINDS).index(thing) + 5 * list(SETTINGS).index(setting)
    colour = colour or default_colour(thing)
    return (index + 3 * (list(COLOURS).index(colour) + 1 if colour else 0)) % 8 == 0


def _paste(image: Image.Image, mask: Image.Image, picture: Image.Image, x: float, y: float) -> None:
    at = (round(x), round(y))
    image.paste(picture, at, picture)
    mask.paste(255, at, picture.getchannel("A"))


def _dress(image: Image.Image, mask: Image.Image, thing: Thing, body: Image.Image) -> None:
    """Paint the hat or the scarf onto an animal whose body is painted."""
    wear = KINDS[thing.kind].wear
    if wear is None or thing.clothes is None:
        return
    height, width = wear.hat if thing.clothes == "hat" else wear.scarf
    clothes = scaled_sprite(thing.clothes, round(width * body.width * 2) // 2)
    y = 2 * thing.y - body.height + height * body.height
    y -= clothes.height * (1.0 if thing.clothes == "hat" else 0.35)
    _paste(image, mask, clothes, 2 * thing.x - clothes.width / 2, y)


def render_with_mask(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Picture (128, 128, 3) uint8 and the things' mask (128, 128) in 0 … 255."""
    image = PLACES[scene.setting](Random(scene.extras), 2 * scene.horizon, scene.autumn)
    mask = Image.new("L", image.size)
    for thing in scene.things:
        name = f"{thing.kind}/{thing.colour}" if thing.colour else thing.kind
        body = scaled_sprite(name, 2 * thing.side, thing.mirrored)
        if not KINDS[thing.kind].floats and scene.setting != "water":
            x, y, r = 2 * thing.x, 2 * thing.y, 0.42 * body.width
            shade = Image.new("L", image.size)
            ImageDraw.Draw(shade).ellipse((x - r, y - 0.14 * r, x + r, y + 0.2 * r), fill=70)
            image.paste((20, 20, 40), (0, 0), shade)
        _paste(image, mask, body, 2 * thing.x - body.width / 2, 2 * thing.y - body.height)
        _dress(image, mask, thing, body)
    picture = np.asarray(image.reduce(2))
    return (pencil(picture) if scene.pencil else picture), np.asarray(mask.reduce(2))


def render(scene: Scene) -> np.ndarray:
    """Paint a scene: (128, 128, 3) uint8."""
    return render_with_mask(scene)[0]


def _sample_thing(
    rng: Random, kind: str, column: int | None, place: str | None, horizon: float
) -> Thing:
    """One thing at a random place; column 0 or 1 keeps it in that half, `place` near that side."""
    clothes = size = None
    if kind in DRESSED and rng.random() < 0.3:
        clothes = rng.choice(("hat", "hat", "scarf"))
    low, high = PAIR_SIZE if column is not None else MEDIUM_SIZE
    if column is None and rng.random() < 0.2:
        size = rng.choice(list(SIZES) if clothes != "hat" else ["small"])
        low, high = SIZES[size]
    side = rng.randint(low, min(high, 78) if clothes == "hat" else high)
    room = max(0.0, 62 - side / 2)
    if column is not None:
        x = 64 + (-30 if column == 0 else 30) + rng.uniform(-5, 5)
    elif place:
        x = 64 + (-1 if place == "left" else 1) * max(room, 18) * rng.uniform(0.8, 1)
    else:
        x = 64 + room * rng.uniform(-1, 1)
    high_foot = max(horizon + 8, side + (30 if clothes == "hat" else 4))
    y = min(122.0, rng.uniform(min(high_foot, 120), 122))
    if KINDS[kind].floats:
        y = rng.uniform(side + 4, max(side + 6, 108))
    colour = None
    if kind in DYED:
        colour = default_colour(kind) if rng.random() < 0.25 else rng.choice(list(COLOURS))
    return Thing(kind, colour, size, clothes, x, y, side, rng.random() < 0.5)


def sample_scene(rng: Random, held_out: bool = False) -> Scene:
    """A random scene of the training world; held-out combinations appear only where allowed."""
    setting = rng.choice(list(SETTINGS))
    columns = (0, 1) if rng.random() < 0.1 else (None,)
    place = rng.choice(list(SIDES)) if len(columns) == 1 and rng.random() < 0.12 else None
    horizon = rng.uniform(66, 92)
    kinds, weights = list(KINDS), [kind.weight for kind in KINDS.values()]
    things: list[Thing] = []
    for column in columns:
        while True:
            thing = _sample_thing(rng, rng.choices(kinds, weights)[0], column, place, horizon)
            repeated = any(thing.kind == other.kind for other in things)
            if not repeated and (held_out or not is_held_out(thing.kind, thing.colour, setting)):
                break
        things.append(thing)
    autumn = setting in AUTUMNAL and rng.random() < 0.3
    return Scene(
        tuple(things), setting, autumn, rng.random() < 0.05, place, horizon, rng.randrange(2**31)
    )


def describe(scene: Scene, rng: Random) -> Prompt:
    """A caption of the scene; sizes, places and the setting are left out now and then."""
    nouns = []
    for thing in scene.things:
        colour = thing.colour
        if colour and colour == default_colour(thing.kind) and rng.random() < 0.6:
            colour = None
        size = thing.size if rng.random() < 0.9 else None
        clothes = thing.clothes
        nouns.append(
            Noun(thing.kind, colour, size, clothes, rng.random() < 0.08, rng.random() < 0.9)
        )
    setting = scene.setting if rng.random() < 0.93 else None
    side = scene.place if rng.random() < 0.9 else None
    return Prompt(tuple(nouns), setting, scene.autumn, scene.pencil, side, rng.random() < 0.75)


def caption_words() -> list[str]:
    """Every word of the caption grammar."""
    phrases = [*KINDS, *COLOURS, *SIZES, *SIDES.values(), *SYNONYMS.values(), PENCIL]
    phrases += [words for pair in (*SETTINGS.values(), *CLOTHES.values()) for words in pair]
    phrases += ["an and the in autumn"]
    return sorted({word for phrase in phrases for word in phrase.split()})


def held_out_prompts(count: int, seed: int = 0) -> list[Prompt]:
    """One-thing prompts whose (thing, colour, setting) training never showed.

    Things come in turn, so that each is asked for equally often; a recolourable one comes with
    a colour named.
    """
    rng = Random(seed)
    chosen: list[Prompt] = []
    while len(chosen) < count:
        kind = list(KINDS)[len(chosen) % len(KINDS)]
        options = [
            (colour, setting)
            for colour in (COLOURS if kind in DYED else (None,))
            for setting in SETTINGS
            if is_held_out(kind, colour, setting)
        ]
        colour, setting = rng.choice(options)
        chosen.append(Prompt((Noun(kind, colour),), setting))
    return chosen
