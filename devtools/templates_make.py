"""Writes the workflow templates and their thumbnails: the real ComfyUI runs the demo's graphs.

python dev.py python -- -m devtools.templates_make [PART OF A NAME …]

With parts of names, only the templates that have one of them in theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import math
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from devtools.demo.client import Comfy, DemoError, running_server
from devtools.environment import REPOSITORY
from devtools.server import prepare_base_folder
from devtools.templates import Template, page_workflow
from devtools.templates_graphs import templates
from devtools.templates_parts import DEMO_SIZE

WORKFLOWS = REPOSITORY / "workflows"
SIDE = 400  # of a thumbnail, pixels
QUALITY = 88
GAP = 8
CAPTION, CAPTION_SIZE = 42, 16  # below a picture, and its letters
LETTERS, TITLE_LETTERS = 30, 20  # in a line of a card
INK, PAPER = "#222", "#f4f1ea"


async def make(comfy: Comfy, parts: Sequence[str], thumbnails: bool) -> None:
    await comfy.wait_until_ready()
    async with comfy.session.get("/object_info") as answer:
        schemas = await answer.json()
    for template in templates():
        if parts and not any(part in template.name for part in parts):
            continue
        text = json.dumps(page_workflow(template, schemas), indent=1, ensure_ascii=False)
        (WORKFLOWS / f"{template.name}.json").write_text(text + "\n", encoding="utf-8")
        if not thumbnails:
            continue
        if template.models:  # they are not here
            thumbnail = card(template)
        else:
            thumbnail = sheet(await pictures(comfy, template), template.captions)
        thumbnail.save(WORKFLOWS / f"{template.name}.jpg", quality=QUALITY)
        sys.stdout.write(f"{template.name}\n")


async def pictures(comfy: Comfy, template: Template) -> list[Image.Image]:
    """All that the template's previews show, in the order of its nodes."""
    outputs: dict[str, Any] = await comfy.run(template.awake, lambda *_: None)
    found = []
    for node_id in sorted(outputs, key=int):
        for image in outputs[node_id].get("images", []):
            found.append(Image.open(io.BytesIO(await comfy.picture(image))).convert("RGB"))
    return found


def sheet(images: list[Image.Image], captions: Sequence[str]) -> Image.Image:
    """The pictures of the model's own size (no heat maps), two or three in a row, with captions."""
    images = [image for image in images if image.size == (DEMO_SIZE, DEMO_SIZE)]
    columns = 2 if len(images) in (2, 4) else 3
    rows = math.ceil(len(images) / columns)
    side = min((SIDE - GAP * (columns + 1)) // columns, SIDE // rows - CAPTION)
    row, left = side + CAPTION, (SIDE - columns * (side + GAP) + GAP) // 2
    top = (SIDE - row * rows) // 2
    canvas = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(CAPTION_SIZE)
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x = left + place % columns * (side + GAP)
        y = top + place // columns * row
        canvas.paste(image.resize((side, side), Image.Resampling.LANCZOS), (x, y))
        text = textwrap.fill(caption, round(1.9 * side / CAPTION_SIZE))
        draw.multiline_text((x + 2, y + side + 2), text, fill=INK, font=font, spacing=2)
    return canvas


def card(template: Template) -> Image.Image:
    """What is done and the prompts it is done with, for a model that is not here."""
    canvas = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(canvas)
    y = 70
    title = textwrap.fill(template.name[len("00 ") :].split(" (")[0], TITLE_LETTERS)
    for size, text in ((34, title), (20, template.model_title), *prompts(template)):
        font = ImageFont.load_default(size)
        draw.multiline_text((30, y), text, fill=INK, font=font, spacing=6)
        y = draw.multiline_textbbox((30, y), text, font=font, spacing=6)[3] + 24
    return canvas


def prompts(template: Template) -> list[tuple[int, str]]:
    """The swap's two prompts or the instruction, with their size."""
    for node in template.graph.values():
        if node["class_type"] == "P2PWordSwap":
            both = node["inputs"]["source_prompt"], node["inputs"]["target_prompt"]
            return [(22, textwrap.fill(text, LETTERS)) for text in both]
    texts = [
        node["inputs"]["text"]
        for node in template.graph.values()
        if node["class_type"] in ("CLIPTextEncode", "P2PPromptWeights")
    ]
    return [(22, textwrap.fill(texts[0], LETTERS))]


async def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="of a template's name")
    parser.add_argument("--graphs-only", action="store_true", help="leave thumbnails as they are")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="p2p-templates-", ignore_cleanup_errors=True) as folder:
        base = prepare_base_folder(Path(folder))
        log = base / "comfyui.log"
        try:
            async with running_server(base, log) as comfy:
                await make(comfy, options.parts, not options.graphs_only)
        except DemoError as error:
            sys.stderr.write(f"{error}\n{log.read_text(encoding='utf-8')[-2000:]}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
