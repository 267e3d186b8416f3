"""Edits in company: other nodes' patches beside the controller, on every family of UNets.

    python dev.py python -- benchmarks/company.py --out docs/company.md

Every companion enters the graph of an edit, before the controller and behind it, on tiny randomly
initialised checkpoints that the host's own loader reads. Figures are relative distances |a-b| / |b|
of the final latents; a cell holds the largest of

- source: the source row against the same graph without the pack;
- same words: an edit to the same prompt against the source;
- edit: the edits against explicit attention maps, rows told by their text (for tiles in a batch,
  against the tiles one after the other);
- order: the companion behind the controller against the companion before it.

Where it cannot be right the pack refuses in one sentence. All else is a defect.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path += [str(REPOSITORY / "tests" / "support"), str(REPOSITORY)]

from companions import COMPANIONS  # noqa: E402
from companions.companion import RESULT, SENTENCE  # noqa: E402
from companions.trial import DEFECT, Outcome, Trial  # noqa: E402
from host_run import load_host  # noqa: E402

FAMILIES = ("sd1", "sd1 inpainting", "sd2", "sd2, v", "sdxl", "sdxl inpainting", "ssd")
Cells = Mapping[tuple[str, str], Outcome]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--companions", nargs="+", choices=tuple(COMPANIONS), metavar="COMPANION")
    parser.add_argument("--out", type=Path, help="also write the table there, as Markdown")
    return parser.parse_args()


def outcome(name: str, family: str) -> Outcome:
    """A cell of the table; whatever goes wrong in it is a defect."""
    try:
        return Trial(COMPANIONS[name], family).outcome(COMPANIONS)
    except Exception as error:  # a cell must not end the table
        return Outcome(DEFECT, text=f"{type(error).__name__}: {error}")


def page(cells: Cells, names: Sequence[str], families: Sequence[str]) -> str:
    """The table, the sentences and what is not compared."""
    head = (
        (__doc__ or "").replace("\n\n    python", "\n\n```\npython").replace(".md\n", ".md\n```\n")
    )
    lines = [f"# {head.strip()}", "", f"| beside the edit | {' | '.join(families)} |"]
    lines.append("|---|" + "---|" * len(families))
    for name in names:
        row = [shown(cells.get((name, family))) for family in families]
        lines.append(f"| {name} | {' | '.join(row)} |")
    said = {name: cells[name, f].text for f in families for name in names if _says(cells, name, f)}
    lines += ["", "## What the pack says", ""]
    lines += [f"- **{name}**: {text}" for name, text in said.items()]
    lines += ["", "## What is not compared", ""]
    lines += [f"- **{name}**: {why}." for name in names if (why := COMPANIONS[name].why)]
    return "\n".join(lines) + "\n"


def _says(cells: Cells, name: str, family: str) -> bool:
    return (name, family) in cells and cells[name, family].kind == SENTENCE


def shown(cell: Outcome | None) -> str:
    if cell is None:
        return "–"
    if cell.kind == RESULT:
        return f"{max(cell.figures.values()):.0e}"
    return "a sentence" if cell.kind == SENTENCE else "**defect**"


def numbers(cell: Outcome) -> str:
    return ", ".join(f"{name} {value:.0e}" for name, value in cell.figures.items())


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    load_host()
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    names = options.companions or tuple(COMPANIONS)
    cells: dict[tuple[str, str], Outcome] = {}
    console = Console(stderr=True)
    for family in options.families:
        for name in track(names, family, console=console):
            if COMPANIONS[name].families and family not in COMPANIONS[name].families:
                continue
            begun = time.perf_counter()
            cells[name, family] = cell = outcome(name, family)
            took = f"({time.perf_counter() - begun:.1f} s)"
            line = f"{family} | {name} | {cell.kind} | {numbers(cell)} {cell.text} {took}"
            console.print(line, soft_wrap=True)
    text = page(cells, names, options.families)
    Console(soft_wrap=True).print(text, markup=False)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    if any(cell.kind == DEFECT for cell in cells.values()):
        sys.exit("There are defects.")


if __name__ == "__main__":
    main()
