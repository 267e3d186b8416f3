"""`python dev.py demo`: word edits of made and of given pictures, by the real ComfyUI."""

from __future__ import annotations

import argparse
import asyncio
import io
import shutil
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
from devtools.demo.graphs import MAPS_ID, OUTPUT_ID, Settings, Workflow
from devtools.demo.instruct import IMAGE_CFG, InstructWorkflow
from devtools.demo.photo import PhotoWorkflow
from devtools.demo.plan import plan_instructions, plan_photo, plan_settings, plan_workflows
from devtools.demo.progress import Steps
from devtools.demo.sheet import Column, contact_sheet
from devtools.server import link_file, prepare_base_folder

console = Console(highlight=False)
AnyWorkflow = Workflow | PhotoWorkflow | InstructWorkflow


@dataclass(frozen=True)
class Result:
    """A workflow's pictures, row by row: [source, edit 1 … edit n] for every seed."""

    workflow: AnyWorkflow
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
    add("--photo", type=Path, metavar="FILE", help="a picture that --source describes, to edit")
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
    if arguments.photo is not None and arguments.source is None:
        parser.error("--photo needs --source, its description, and --target.")
    return arguments


async def make_pictures(
    comfy: Comfy, settings: Settings, workflow: AnyWorkflow, out: Path
) -> Result:
    """Run one workflow and write its pictures."""
    start = time.monotonic()
    with Steps(console, workflow.name, settings.steps) as steps:
        outputs = await comfy.run(workflow.graph(settings), steps.update)
    seconds = time.monotonic() - start
    pictures, names = [], workflow.pictures
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
    return contact_sheet(columns, f"{footer(settings)}, seed {settings.seed}")


def make_photo_sheet(settings: Settings, photo: Path, results: list[Result]) -> Image.Image:
    """The photograph, and reconstruction over edit for every method."""
    columns = [Column("photograph", settings.source, (Image.open(photo),))]
    for result in results:
        [panel] = result.workflow.panels
        text = f"above: the reconstruction; below: {panel.target}"
        columns.append(Column(result.workflow.name, text, tuple(result.pictures)))
    return contact_sheet(columns, footer(settings))


def make_instruction_sheet(settings: Settings, photo: Path, results: list[Result]) -> Image.Image:
    """The photograph, and what every instruction makes of it."""
    columns = [Column("photograph", "", (Image.open(photo),))]
    columns += [Column(result.workflow.name, "", tuple(result.pictures)) for result in results]
    scales = f"{footer(settings)}, image_cfg {IMAGE_CFG:g}"
    return contact_sheet(columns, f"{scales}, seed {settings.seed}")


def footer(settings: Settings) -> str:
    model = settings.checkpoint or "embedded demo model"
    return f"{model}, {settings.steps} steps, euler, cfg {settings.cfg:g}"


async def demo(arguments: argparse.Namespace) -> None:
    if arguments.checkpoint is not None:
        check_checkpoint(arguments.checkpoint)
    settings, workflows = plan_settings(arguments), plan_workflows(arguments)
    photo, photo_settings, photo_flows = plan_photo(arguments, settings)
    told_settings, told_flows = plan_instructions(arguments, settings)
    out: Path = arguments.out.expanduser().resolve()
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="p2p-demo-", ignore_cleanup_errors=True) as folder:
        base = prepare_base_folder(Path(folder))
        if arguments.checkpoint is not None:
            link = base / "models" / "checkpoints" / arguments.checkpoint.name
            link_file(arguments.checkpoint.resolve(), link)
        if photo is not None:
            shutil.copyfile(photo, base / "input" / photo.name)
        async with running_server(base, out / "comfyui.log") as comfy:
            with console.status("Starting ComfyUI …"):
                await comfy.wait_until_ready()
            console.print(f"ComfyUI is up after {time.monotonic() - start:.1f} s")
            graphs = [flow.graph(settings) for flow in (*workflows, *photo_flows, *told_flows)]
            needed = {node["class_type"] for graph in graphs for node in graph.values()}
            await comfy.require_nodes(needed)
            results = [await make_pictures(comfy, settings, flow, out) for flow in workflows]
            edited = [await make_pictures(comfy, photo_settings, flow, out) for flow in photo_flows]
            told = [await make_pictures(comfy, told_settings, flow, out) for flow in told_flows]
    sheets = [out / "contact-sheet.png"]
    make_sheet(settings, results).save(sheets[0])
    if photo is not None:
        sheets.append(out / "photo-sheet.png")
        make_photo_sheet(photo_settings, photo, edited).save(sheets[1])
    if photo is not None and told:
        sheets.append(out / "instruction-sheet.png")
        make_instruction_sheet(told_settings, photo, told).save(sheets[2])
    report([*results, *edited, *told], sheets, time.monotonic() - start)


def report(results: list[Result], sheets: list[Path], seconds: float) -> None:
    for result in results:
        count = len(result.pictures)
        console.print(f"{result.workflow.name:<29} {count:3} pictures  {result.seconds:6.1f} s")
    console.print(f"{'in all':<43} {seconds:6.1f} s")
    console.print(f"Pictures:      {sheets[0].parent}", soft_wrap=True)
    for sheet in sheets:
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
