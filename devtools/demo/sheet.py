"""The labelled contact sheet: a column per edit, a row per seed."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

TILE = 256  # pixels, of a picture on the sheet
GAP = 16
TITLE_SIZE, TEXT_SIZE = 20, 15
LINES = 4
PAPER, INK, GREY = "white", "#111111", "#555555"


@dataclass(frozen=True)
class Column:
    """A column's heading, the words below it, and its pictures from top to bottom."""

    title: str
    text: str
    pictures: tuple[Image.Image, ...]


def contact_sheet(columns: list[Column], footer: str) -> Image.Image:
    """All columns side by side, with a line about the settings at the bottom."""
    title_font, text_font = (ImageFont.load_default(size) for size in (TITLE_SIZE, TEXT_SIZE))
    labels = [wrap(column.text, text_font) for column in columns]
    lines = 1 + max(label.count("\n") for label in labels)
    rows = max(len(column.pictures) for column in columns)
    heading = GAP + TITLE_SIZE + 8 + lines * (TEXT_SIZE + 5) + GAP // 2
    width = GAP + len(columns) * (TILE + GAP)
    height = heading + rows * (TILE + GAP) + TEXT_SIZE + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (column, label) in enumerate(zip(columns, labels, strict=True)):
        left = GAP + index * (TILE + GAP)
        draw.text((left, GAP), column.title, INK, title_font)
        draw.multiline_text((left, GAP + TITLE_SIZE + 8), label, GREY, text_font, spacing=4)
        for row, picture in enumerate(column.pictures):
            sheet.paste(enlarge(picture), (left, heading + row * (TILE + GAP)))
    draw.text((GAP, height - TEXT_SIZE - GAP), footer, GREY, text_font)
    return sheet


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text in lines as wide as a tile, cut short where it needs too many."""
    characters = int(len(text) * TILE / max(font.getlength(text), 1)) if text else 1
    lines = textwrap.wrap(text, max(characters - 1, 8), max_lines=LINES, placeholder=" …")
    return "\n".join(lines)


def enlarge(picture: Image.Image) -> Image.Image:
    """A square tile; small pictures keep their pixels' look."""
    return picture.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
