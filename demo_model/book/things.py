"""What the picture book shows: things, their drawings, colours, and where a hat or scarf sits."""

from __future__ import annotations

from dataclasses import dataclass

# Fills of a recoloured thing: main, dark, light.
COLOURS: dict[str, tuple[str, str, str]] = {
    "red": ("#f02c2c", "#b80f33", "#ff8080"),
    "yellow": ("#ffd42e", "#e0a010", "#ffee96"),
    "green": ("#1fa34a", "#0c6e30", "#7fd896"),
    "blue": ("#2a62ea", "#163a9e", "#8db4ff"),
    "purple": ("#8a3cc8", "#5a1f90", "#c79af0"),
    "pink": ("#ff74c0", "#d8368f", "#ffc0e4"),
}


@dataclass(frozen=True)
class Wear:
    """Where an animal wears a hat and a scarf, as shares of its own width and height.

    hat: brim height and hat width. scarf: height of the band's middle and its width.
    """

    hat: tuple[float, float]
    scarf: tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """A thing of the world.

    icon: name of the drawing. weight: share among the drawn things. colour: the colour that
    the noun alone means, None where the thing cannot be recoloured. fills: the drawing's main,
    dark and light fills. floats: hangs in the air.
    """

    icon: str
    weight: float
    wear: Wear | None = None
    colour: str | None = None
    fills: tuple[tuple[str, ...], ...] = ()
    floats: bool = False


def _animal(icon: str, hat: tuple[float, float], scarf: tuple[float, float]) -> Kind:
    return Kind(icon, 1.2, Wear(hat, scarf))


def _dyed(icon: str, colour: str, *fills: tuple[str, ...], floats: bool = False) -> Kind:
    return Kind(icon, 1.9, None, colour, fills, floats)


KINDS: dict[str, Kind] = {
    "cat": _animal("cat-face", (0.22, 0.52), (0.97, 0.78)),
    "dog": _animal("dog-face", (0.08, 0.56), (1.0, 0.72)),
    "rabbit": _animal("rabbit-face", (0.42, 0.54), (0.98, 0.72)),
    "pig": _animal("pig-face", (0.1, 0.6), (0.98, 0.72)),
    "panda": _animal("panda", (0.1, 0.56), (0.98, 0.74)),
    "fox": _animal("fox", (0.3, 0.5), (0.98, 0.66)),
    "lion": _animal("lion", (0.14, 0.6), (0.97, 0.62)),
    "frog": _animal("frog", (0.22, 0.52), (0.98, 0.78)),
    "owl": _animal("owl", (0.1, 0.62), (0.5, 0.86)),
    "penguin": _animal("penguin", (0.06, 0.6), (0.42, 0.62)),
    "chick": _animal("front-facing-baby-chick", (0.08, 0.6), (0.46, 0.66)),
    "bear": _animal("bear", (0.14, 0.56), (0.98, 0.74)),
    "turtle": Kind("turtle", 1.2),
    "elephant": Kind("elephant", 1.2),
    "car": _dyed("oncoming-automobile", "red", ("#f8312f",)),
    "fish": _dyed("fish", "blue", ("#00a6ed",), ("#0074ba",)),
    "bird": _dyed("bird", "purple", ("#ca0b4a",)),
    "teapot": _dyed("teapot", "pink", ("#f8312f",), ("#ca0b4a",), ("#ff822d",)),
    "shirt": _dyed("t-shirt", "green", ("#86d72f", "#c3ef3c"), ("#44911b", "#00d26a")),
    "book": _dyed("closed-book", "blue", ("#ca0b4a",), ("#990838",)),
    "backpack": _dyed("backpack", "purple", ("#f8312f",), ("#ca0b4a",)),
    "mushroom": _dyed("mushroom", "red", ("#f8312f",), (), ("#fbb8ab",)),
    "balloon": _dyed("balloon", "yellow", ("#f8312f",), ("#ca0b4a", "#3f5fff"), ("#ff8687",),
                     floats=True),
    "bucket": _dyed("bucket", "yellow", ("#0074ba",), ("#00a6ed",)),
    "apple": _dyed("red-apple", "red", ("#f8312f",)),
    "banana": Kind("banana", 1.0),
    "strawberry": Kind("strawberry", 1.0),
    "cake": Kind("birthday-cake", 1.0),
    "burger": Kind("hamburger", 1.0),
    "sunflower": Kind("sunflower", 1.0),
    "cactus": Kind("cactus", 1.0),
    "house": Kind("house", 1.0),
    "snowman": Kind("snowman-without-snow", 1.0),
}  # fmt: skip
DYED = tuple(name for name, kind in KINDS.items() if kind.colour)
DRESSED = tuple(name for name, kind in KINDS.items() if kind.wear)
SCENERY_ICONS = {"tree": "deciduous-tree", "fir": "evergreen-tree", "palm": "palm-tree"}
HAT_ICON = "top-hat"
SCARF_DRAWING = (  # 32 wide, 18 high: a band with a hanging end
    '<path fill="#d8232a" d="M1 2C8 7 24 7 31 2L32 7C24 13 8 13 0 7Z"/>'
    '<path fill="#a8121e" d="M19 9L26 8L28 17L21 18Z"/>'
    '<path fill="#ffd9d9" d="M21.4 14L27.3 13L27.6 14.6L21.7 15.7Z"/>'
    '<path fill="#ffd9d9" d="M7 5.2L9 5.7L9 10.4L7 9.9ZM15 6.2L17 6.2L17 11L15 11Z"/>'
)
