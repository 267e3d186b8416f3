"""A server's long day: mixed prompts with random cancels; memory stays flat, results stay the same.

    python dev.py python -- benchmarks/long_run.py --count 300

One server process gets prompts of every technique in random order: edits with blends and heat
maps, several edits at once, inverted photographs, null-text optimisation, instructions. Some are
cancelled while they run. Before and after, the same prompts must give the same pictures bit for
bit.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.progress import track

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY))

from devtools.demo.client import Comfy, DemoError, running_server  # noqa: E402
from devtools.demo.graphs import OUTPUT_ID, Panel, Settings, Workflow  # noqa: E402
from devtools.demo.instruct import InstructWorkflow  # noqa: E402
from devtools.demo.photo import PhotoWorkflow  # noqa: E402
from devtools.server import prepare_base_folder  # noqa: E402

SOURCE = "a red circle on a gray background"
SWAP = Panel("swap", "P2PWordSwap", "a blue circle on a gray background")
BLEND = Panel(
    "blend", "P2PWordSwap", "a red square on a gray background", blend=("circle", "square")
)
REFINE = Panel("refine", "P2PRefine", "a red circle with stripes on a gray background")
SCALE = Panel("scale", "P2PWordSwap", SWAP.target, words="blue", scale=2.0)
PHOTOS = ("one.png", "two.png", "three.png")
MIB = 2**20


def workflows() -> dict[str, Any]:
    """A prompt of every kind."""
    photo = PHOTOS[0]
    return {
        "swap": Workflow("swap", (SWAP,)),
        "blend and maps": Workflow("blend", (BLEND,), map_words="circle"),
        "three edits": Workflow("three", (SWAP, REFINE, SCALE)),
        "photograph": PhotoWorkflow("photograph", photo, SWAP, pinned=True),
        "photograph, one noise": PhotoWorkflow("noise", photo, SWAP, pinned=True, noise=True),
        "negative-prompt inversion": PhotoWorkflow("negative", photo, SWAP, inner_steps=0),
        "null-text": PhotoWorkflow("null-text", photo, SWAP, inner_steps=2),
        "instruction": InstructWorkflow("instruction", photo, "make it blue"),
    }


@dataclass
class Day:
    """The server and its base folder, and the chance of what comes next."""

    comfy: Comfy
    rng: random.Random
    base: Path

    def settings(self) -> Settings:
        size, steps = self.rng.choice((96, 128, 160)), self.rng.randint(2, 6)
        seed, images = self.rng.randrange(1 << 30), self.rng.choice((1, 1, 2))
        return Settings(None, SOURCE, size, images, steps, self.rng.choice((2.5, 4.0, 7.5)), seed)

    def memory(self) -> float:
        """MiB that the server holds."""
        return psutil.Process(self.comfy.process.pid).memory_info().rss / MIB

    async def prompt(self, workflow: Any, settings: Settings) -> list[np.ndarray]:
        """The pictures that a prompt saves."""
        outputs = await self.comfy.run(workflow.graph(settings), lambda *_: None)
        found = []
        for image in outputs[OUTPUT_ID]["images"]:
            path = self.base / image["type"] / image["subfolder"] / image["filename"]
            found.append(np.asarray(Image.open(path)))
        return found

    async def cancelled(self, workflow: Any, settings: Settings) -> bool:
        """Queue a prompt and cancel it some time later; whether that came before its end."""
        running = asyncio.create_task(self.prompt(workflow, settings))
        await asyncio.sleep(self.rng.random() ** 2)
        async with self.comfy.session.post("/interrupt") as answer:
            answer.raise_for_status()
        try:
            await running
        except DemoError as error:
            if "cancelled" not in str(error):
                raise
            return True
        return False


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--warm-up", type=int, default=100, help="prompts before memory counts")
    parser.add_argument("--cancel", type=float, default=0.2, help="share of prompts")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


async def long_day(options: argparse.Namespace, folder: Path) -> bool:
    console = Console(stderr=True)
    base = prepare_base_folder(folder / "base")
    for number, name in enumerate(PHOTOS):
        paint(base / "input" / name, number)
    kinds = workflows()
    fixed = Settings(None, SOURCE, 128, 1, 4, 4.0, 5)
    async with running_server(base, folder / "server.log") as comfy:
        day = Day(comfy, random.Random(options.seed), base)
        await comfy.wait_until_ready()
        first = {name: await day.prompt(kind, fixed) for name, kind in kinds.items()}
        held, cancels = [], 0
        for _ in track(range(options.count), "prompts", console=console):
            kind = day.rng.choice(list(kinds.values()))
            if day.rng.random() < options.cancel:
                cancels += await day.cancelled(kind, day.settings())
            else:
                await day.prompt(kind, day.settings())
            held.append(day.memory())
        last = {name: await day.prompt(kind, fixed) for name, kind in kinds.items()}
    same = {name: alike(first[name], last[name]) for name in kinds}
    return report(options, held, cancels, same)


def alike(first: list[np.ndarray], last: list[np.ndarray]) -> bool:
    pairs = zip(first, last, strict=True)
    return bool(first) and all(np.array_equal(one, other) for one, other in pairs)


def report(
    options: argparse.Namespace, held: list[float], cancels: int, same: dict[str, bool]
) -> bool:
    """Print the figures; whether memory is flat and results are the same."""
    tenth = max((options.count - options.warm_up) // 10, 1)
    after = held[options.warm_up :]
    begin, end = statistics.median(after[:tenth]), statistics.median(after[-tenth:])
    growth = end / begin - 1
    console = Console()
    console.print(f"{options.count} prompts, {cancels} cancelled while they ran")
    console.print(
        f"memory: {begin:.0f} MiB after the first {options.warm_up}, {end:.0f} MiB at the end "
        f"({100 * growth:+.1f} %), at most {max(after):.0f} MiB (medians of {tenth} prompts)"
    )
    curve = ", ".join(f"{held[i]:.0f}" for i in range(0, len(held), max(len(held) // 20, 1)))
    console.print(f"along the way: {curve} MiB")
    changed = [name for name, equal in same.items() if not equal]
    console.print(f"{len(same)} kinds of prompts, results changed: {', '.join(changed) or 'none'}")
    return growth <= 0.02 and not changed


def paint(path: Path, seed: int) -> None:
    """A picture of coarse colours."""
    cells = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(cells).resize((128, 128), Image.Resampling.BICUBIC).save(path)


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        fine = asyncio.run(long_day(options, Path(folder)))
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
