"""The sheet of sprites that `art.py` made: every thing in every colour."""

from __future__ import annotations

import json
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parent


@cache
def _sheet() -> tuple[Image.Image, dict[str, tuple[int, int, int, int]]]:
    boxes = json.loads((FOLDER / "sprites.json").read_text(encoding="utf-8"))
    return Image.open(FOLDER / "sprites.png").convert("RGBA"), boxes


@cache
def sprite(name: str) -> Image.Image:
    """One sprite, RGBA; its longer side is 128 pixels."""
    sheet, boxes = _sheet()
    if name not in boxes:
        raise ValueError(f"There is no sprite {name!r}; run art.py after adding a thing.")
    x, y, w, h = boxes[name]
    return sheet.crop((x, y, x + w, y + h))


@lru_cache(maxsize=4096)
def scaled_sprite(name: str, side: int, mirrored: bool = False) -> Image.Image:
    """A sprite whose longer side is `side` pixels."""
    picture = sprite(name)
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = side / max(picture.size)
    size = tuple(max(1, round(edge * scale)) for edge in picture.size)
    return picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")  # type: ignore[arg-type]
