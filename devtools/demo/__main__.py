"""`python dev.py demo`: word swap, refine and reweight, by the real ComfyUI."""

from __future__ import annotations

import argparse
import asyncio
import io
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from rich.console import Console

from devtools.demo.checkpoint import check_checkpoint
from devtools.demo.client import Comfy, DemoError, running_server
from devtools.demo.graphs import MAPS_ID, OUTPUT_ID, Settings, Workflow, build_graph
from devtools.demo.plan import plan_settings, plan_workflows
from devtools.demo.progress import Steps
from devtools.demo.sheet import Column, contact_sheet
from devtools.server import link_file, prepare_base_folder

console = Console(highlight=False)


@dataclass(frozen=True)
class Result:
    """A workflow's pictures, row by row: [source, edit 1 … edit n] for every seed."""

    workflow: Workflow
    pictures: list[Image.Image]
    heat_maps: list[Path]
    seconds: float

    def column(self, place: int) -> tuple[Image.Image, ...]:
        return tuple(self.pictures[place :: 1 + len(self.workflow.panels)])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dev.py demo", description="Word edits with the embedded model or your checkpoint."
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, metavar="FILE", help="a Stable Diffusion 1.5 checkpoint")
    add("--source", metavar="PROMPT", help="prompt of the source picture")
    add("--target", metavar="PROMPT", help="prompt of the edited picture")
    add("--words", help="words to reweight; default: those that only the target has")
    add("--scales", type=float, nargs="+", metavar="X", help="scales to reweight them with")
    add("--images", type=int, metavar="N", help="pictures, each with its own noise")
    add("--size", type=int, metavar="PIXELS", help="width and height")
    add("--steps", type=int)
    add("--cfg", type=float)
    add("--seed", type=int, default=1)
    add("--out", type=Path, default=Path("p2p-demo"), metavar="FOLDER", help="default: %(default)s")
    arguments = parser.parse_args()
    if (arguments.source is None) != (arguments.target is None):
        parser.error("--source and --target go together.")
    return arguments


async def make_pictures(comfy: Comfy, settings: Settings, workflow: Workflow, out: Path) -> Result:
    """Run one workflow and write its pictures."""
    start = time.monotonic()
    with Steps(console, workflow.name, settings.steps) as steps:
        outputs = await comfy.run(build_graph(settings, workflow), steps.update)
    seconds = time.monotonic() - start
    pictures, names = [], ["source", *(panel.title for panel in workflow.panels)]
    for index, image in enumerate(outputs[OUTPUT_ID]["images"]):
        data = await comfy.picture(image)
        row, place = divmod(index, len(names))
        name = names[place].replace(" ", "-")
        stem = f"{workflow.name.replace(' ', '-')}_{row + 1}_{name}"
        (out / f"{stem}.png").write_bytes(data)
        pictures.append(Image.open(io.BytesIO(data)))
    heat_maps = []
    for number, image in enumerate(outputs.get(MAPS_ID, {}).get("images", []), start=1):
        heat_maps.append(out / f"{workflow.name.replace(' ', '-')}_heat-map-{number}.png")
        heat_maps[-1].write_bytes(await comfy.picture(image))
    return Result(workflow, pictures, heat_maps, seconds)


def make_sheet(settings: Settings, results: list[Result]) -> Image.Image:
    columns = [Column("source", settings.source, results[0].column(0))]
    for result in results:
        for place, panel in enumerate(result.workflow.panels, start=1):
            text = panel.target
            if panel.words:
                text = f"“{panel.words}” at {panel.scale:g} in: {text}"
            columns.append(Column(panel.title, text, result.column(place)))
    model = settings.checkpoint or "embedded demo model"
    footer = f"{model}, {settings.steps} steps, euler, cfg {settings.cfg:g}, seed {settings.seed}"
    return contact_sheet(columns, footer)


async def demo(arguments: argparse.Namespace) -> None:
    if arguments.checkpoint is not None:
        check_checkpoint(arguments.checkpoint)
    settings, workflows = plan_settings(arguments), plan_workflows(arguments)
    out: Path = arguments.out.expanduser().resolve()
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="p2p-demo-", ignore_cleanup_errors=True) as folder:
        base = prepare_base_folder(Path(folder))
        if arguments.checkpoint is not None:
            link = base / "models" / "checkpoints" / arguments.checkpoint.name
            link_file(arguments.checkpoint.resolve(), link)
        async with running_server(base, out / "comfyui.log") as comfy:
            with console.status("Starting ComfyUI …"):
                await comfy.wait_until_ready()
            console.print(f"ComfyUI is up after {time.monotonic() - start:.1f} s")
            graphs = [build_graph(settings, workflow) for workflow in workflows]
            needed = {node["class_type"] for graph in graphs for node in graph.values()}
            await comfy.require_nodes(needed)
            results = [await make_pictures(comfy, settings, flow, out) for flow in workflows]
    sheet = out / "contact-sheet.png"
    make_sheet(settings, results).save(sheet)
    report(results, sheet, time.monotonic() - start)


def report(results: list[Result], sheet: Path, seconds: float) -> None:
    for result in results:
        count = len(result.pictures)
        console.print(f"{result.workflow.name:<12} {count:3} pictures  {result.seconds:6.1f} s")
    console.print(f"{'in all':<26} {seconds:6.1f} s")
    console.print(f"Pictures:      {sheet.parent}", soft_wrap=True)
    console.print(f"Contact sheet: {sheet}", soft_wrap=True)
    for path in (path for result in results for path in result.heat_maps):
        console.print(f"Heat map:      {path}", soft_wrap=True)


def end_like_ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, end_like_ctrl_c)
    try:
        asyncio.run(demo(parse_arguments()))
    except (DemoError, ValueError, OSError) as error:
        sys.stderr.write(f"dev.py demo: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("dev.py demo: stopped.\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
