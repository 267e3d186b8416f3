"""Draws the icon and the banner that ComfyUI's registry and manager show.

python dev.py python -- -m devtools.brand
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
SMOOTH = 4  # drawn so many times larger, then reduced
ICON, BANNER = (400, 400), (1260, 540)  # pixels; the registry wants a square and 21:9
NIGHT, PAPER = "#1b1d22", "#f4f1ea"
PAIR = ("source", "edit")  # made by the template "01 First edit"
OLD, NEW, KEPT = "#6b2b2b", "#1d4b7a", "#33373f"
Box = tuple[float, float, float, float]


class Canvas:
    """A picture that is drawn in its own pixels and comes out smooth."""

    def __init__(self, size: tuple[int, int], colour: str) -> None:
        self.size = size
        self.image = Image.new("RGB", (size[0] * SMOOTH, size[1] * SMOOTH), colour)
        self.draw = ImageDraw.Draw(self.image)

    def box(self, box: Box, radius: float, colour: str) -> None:
        self.draw.rounded_rectangle([v * SMOOTH for v in box], radius * SMOOTH, fill=colour)

    def text(self, x: float, y: float, text: str, size: float, colour: str) -> float:
        """A text in the middle of a line; returns where it ends."""
        font = ImageFont.load_default(size * SMOOTH)
        self.draw.text((x * SMOOTH, y * SMOOTH), text, fill=colour, font=font, anchor="lm")
        return x + font.getlength(text) / SMOOTH

    def chip(self, x: float, y: float, word: str, size: float, colour: str, old: bool) -> float:
        """A word on a rounded ground, crossed out if it is old; returns where it ends."""
        width = ImageFont.load_default(size * SMOOTH).getlength(word) / SMOOTH
        pad = 0.6 * size
        self.box((x, y - 0.85 * size, x + width + 2 * pad, y + 0.85 * size), 0.85 * size, colour)
        self.text(x + pad, y, word, size, PAPER)
        if old:
            self.box((x + pad, y, x + pad + width, y + 0.08 * size), 0, PAPER)
        return x + width + 2 * pad

    def pair(self, x: float, y: float, side: float) -> None:
        """One picture, as it was on the left of a slider and as it is edited on the right."""
        middle = x + side / 2
        pixels = round(side * SMOOTH)
        size = (pixels, pixels)
        halves = [Image.open(HERE / f"brand_{name}.png").resize(size) for name in PAIR]
        halves[1].paste(halves[0].crop((0, 0, size[0] // 2, size[1])))
        mask = Image.new("L", size, 0)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, *size), 0.08 * side * SMOOTH, fill=255)
        self.image.paste(halves[1], (round(x * SMOOTH), round(y * SMOOTH)), mask)
        line = 0.012 * side
        self.box((middle - line, y, middle + line, y + side), 0, PAPER)
        grip = 0.045 * side
        self.box(
            (middle - grip, y + side / 2 - grip, middle + grip, y + side / 2 + grip), grip, PAPER
        )

    def save(self, name: str) -> None:
        self.image.resize(self.size, Image.Resampling.LANCZOS).save(DOCS / name, optimize=True)


def icon() -> None:
    canvas = Canvas(ICON, NIGHT)
    canvas.pair(75, 40, 250)
    end = canvas.chip(82, 345, "cat", 36, OLD, old=True)
    canvas.chip(end + 22, 345, "dog", 36, NEW, old=False)
    canvas.save("icon.png")


def banner() -> None:
    canvas = Canvas(BANNER, NIGHT)
    canvas.pair(80, 95, 350)
    canvas.text(500, 165, "Prompt-to-Prompt", 76, PAPER)
    canvas.text(503, 250, "Change the words, keep the picture.", 35, "#b9bcc4")
    x = 503.0
    words = (("a", KEPT), ("cat", OLD), ("dog", NEW), ("on the grass", KEPT))
    for word, colour in words:
        x = canvas.chip(x, 370, word, 38, colour, old=colour == OLD) + 14
    canvas.save("banner.png")


if __name__ == "__main__":
    icon()
    banner()
