"""Draw every thing once, in every colour, into one sheet of sprites (`sprites.png`, `.json`).

The drawings come from the npm package @iconify-json/fluent-emoji-flat (Microsoft, MIT; see the
notice in the model card). Only this program needs that package and `resvg-py`; the sheet it
writes is kept, so that scenes are painted with Pillow alone.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

from PIL import Image

from book.things import COLOURS, HAT_ICON, KINDS, SCARF_DRAWING, SCENERY_ICONS, Kind

FOLDER = Path(__file__).resolve().parent
SIDE = 128  # pixels of a sprite's longer side
SHEET_WIDTH = 1440


def rasterise(body: str, view: tuple[float, float, float, float], width: int) -> Image.Image:
    """A drawing's part `view` (x, y, w, h) as RGBA, `width` pixels wide."""
    import resvg_py

    x, y, w, h = view
    height = max(1, round(width * h / w))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{x} {y} {w} {h}" '
        f'width="{width}" height="{height}">{body}</svg>'
    )
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


def sprite(body: str) -> Image.Image:
    """A drawing cropped to what it covers, its longer side SIDE pixels."""
    coarse = rasterise(body, (0, 0, 32, 32), 512)
    box = coarse.getchannel("A").point(lambda a: 255 * (a > 40)).getbbox()
    if box is None:
        raise ValueError("The drawing is empty; look at its SVG body.")
    left, top, right, bottom = (value / 16 for value in box)
    w, h = right - left, bottom - top
    return rasterise(body, (left, top, w, h), round(SIDE * w / max(w, h)))


def recoloured(body: str, kind: Kind, colour: str) -> str:
    """The drawing with its main, dark and light fills exchanged."""
    for fills, new in zip(kind.fills, COLOURS[colour], strict=False):
        for old in fills:
            if old not in body:
                raise ValueError(f"{kind.icon} has no fill {old}; look at its SVG body.")
            body = body.replace(old, new)
    return body


def sprites(bodies: dict[str, str]) -> dict[str, Image.Image]:
    """All sprites by name; a recoloured one is called 'car/red'."""
    made: dict[str, Image.Image] = {}
    for name, kind in KINDS.items():
        if kind.colour:
            for colour in COLOURS:
                made[f"{name}/{colour}"] = sprite(recoloured(bodies[kind.icon], kind, colour))
        else:
            made[name] = sprite(bodies[kind.icon])
    for name, icon in SCENERY_ICONS.items():
        made[name] = sprite(bodies[icon])
    made["hat"], made["scarf"] = sprite(bodies[HAT_ICON]), sprite(SCARF_DRAWING)
    orange = bodies[SCENERY_ICONS["tree"]].replace("#44911b", "#e2761b")
    return {**made, "autumn tree": sprite(orange)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("icons", type=Path, help="icons.json of the drawings' package")
    args = parser.parse_args()
    icons = json.loads(args.icons.read_text(encoding="utf-8"))["icons"]
    made = sprites({name: icon["body"] for name, icon in icons.items()})
    boxes: dict[str, tuple[int, int, int, int]] = {}
    x, y = 0, 0
    for name, picture in made.items():
        if x + picture.width > SHEET_WIDTH:
            x, y = 0, y + SIDE
        boxes[name] = (x, y, *picture.size)
        x += picture.width
    sheet = Image.new("RGBA", (SHEET_WIDTH, y + SIDE))
    for name, picture in made.items():
        sheet.paste(picture, boxes[name][:2])
    sheet.quantize(256, method=Image.Quantize.FASTOCTREE).save(
        FOLDER / "sprites.png", optimize=True
    )
    lines = json.dumps(boxes, indent=0).replace(',\n"', ',\n"')
    (FOLDER / "sprites.json").write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
