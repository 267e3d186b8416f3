"""What word weights and edits cost on a transformer: time and memory beside plain sampling.

    python dev.py python -- benchmarks/transformer_cost.py
    python benchmarks/transformer_cost.py --device cuda --dtype bf16 --shape flux qwen zimage

Whole runs of a sampler alternate, each beside a plain run of as many rows as a live edit has; edits
act at every step, but for those in the mode auto.
The second form needs nothing but torch and ComfyUI's own requirements: COMFYUI_PATH names its
folder. Weights are random: cost does not depend on them. Seconds on a CPU are the processor's.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:] = [*filter(None, [os.environ.get("COMFYUI_PATH")]), *sys.path[1:], str(REPOSITORY)]
sys.path.append(str(Path(__file__).resolve().parent))

import comfy.cli_args  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

SOURCE = "a photo of a red cat that sits on a green mat"
TARGET = "a photo of a blue dog that sits on a green mat"
ADDED = "a photo of a red cat that sits on a wide green mat"
WEIGHTS = {4: 1.7, 9: 0.5, 10: -1.0}  # of words of the source, by column
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SEED = 3


class Case(NamedTuple):
    """A run and the plain run that it is set beside."""

    run: Callable[[], Tensor]
    beside: str


class Cost(NamedTuple):
    """Medians of a run's seconds and peak bytes, and of their ratios to the plain run's.

    distance: of its first row from the plain run's, relative.
    """

    seconds: float
    times: float
    peak: float
    distance: float


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--shape", nargs="+", default=["small"],
                        choices=("small", "flux", "qwen", "zimage"))  # fmt: skip
    parser.add_argument("--size", type=int, help="pixels; 512 on a CPU, else 1024")
    parser.add_argument("--blocks", type=int, help="3 on a CPU, else 6")
    parser.add_argument("--steps", type=int, help="of one run; 1 on a CPU, else 4")
    parser.add_argument("--repeats", type=int, help="3 on a CPU, else 5")
    parser.add_argument("--runs", nargs="+", metavar="RUN", help="only these and their plain runs")
    return parser.parse_args()


def weighted(model: Any, words: Any, scores: bool = False, image_only: bool = False) -> tuple:
    """What P2P Prompt Weights does behind its reading of the text: (model, positive)."""
    shapes = importlib.import_module("transformer_shapes")
    positive = words.encode_from_tokens_scheduled(words.tokenize(SOURCE))
    columns = torch.arange(len(SOURCE.split()))
    weights = torch.tensor([WEIGHTS.get(int(column), 1.0) for column in columns])
    schedule, runs = shapes.pack("p2p_core.schedule"), shapes.pack("nodes.host.runs")
    plan = shapes.pack("nodes.host.weights.plan").WeightPlan(
        tag="benchmark", encodings=(positive[0][0][0],),
        words=shapes.pack("p2p_core.word_weights").WordWeights(columns, weights),
        window=schedule.Window(0.0, 1.0), blocks=None, scores=scores, image_only=image_only,
        remade=False,
    )  # fmt: skip
    patched = shapes.pack("nodes.host.weights.run").with_weights(model, plan)
    return patched, runs.marked(positive, runs.WEIGHTS, plan.tag)


def edited(pack: Any, model: Any, words: Any, target: str, latent: dict, **options: Any) -> tuple:
    """What P2P Attention Controller gives for a word swap, or for a refinement."""
    shapes = importlib.import_module("transformer_shapes")
    edits, schedule = shapes.pack("p2p_core.edits"), shapes.pack("p2p_core.schedule")
    alignment = shapes.pack("p2p_core.alignment")
    align = alignment.align_refine if target == ADDED else alignment.align_replace
    window = schedule.Window(0.0, options.pop("window", 1.0))
    targets = options.pop("encoder", words)
    made = edits.prompt_edit(words.prompt(SOURCE), targets.prompt(target), align, window, window)
    clip = words if targets is words else _Either(words, targets)
    edit = shapes.pack("nodes.host.edits").Edit(clip, made)
    settings = {"record_maps": False, **options}
    return pack.node("P2PAttentionController", model=model, latent=latent, edit=edit, **settings)


class _Either:
    """A text encoder that fills the source up to one length and other prompts to another."""

    def __init__(self, source: Any, other: Any) -> None:
        self.source, self.other = source, other

    def tokenize(self, text: str, **_: Any) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> list:
        encoder = self.source if text == SOURCE else self.other
        return encoder.encode_from_tokens_scheduled(encoder.tokenize(text))


def cases(pack: Any, model: Any, shape: Any, size: int, steps: int) -> dict[str, Case]:
    shapes = importlib.import_module("transformer_shapes")
    words = shapes.Words(shape)
    text = words.encode_from_tokens_scheduled(words.tokenize(SOURCE))
    one, two = (shape.latent(size, rows) for rows in (1, 2))
    two["batch_index"] = [0, 0]

    def sample(model: Any, positive: Any, latent: Any) -> Tensor:
        settings = {"steps": steps, "cfg": 1.0, "scheduler": "simple", "seed": SEED}
        return pack.sample(model, positive, text, latent, **settings)["samples"]

    def weights(**options: Any) -> Case:
        patched, positive = weighted(model, words, **options)
        return Case(partial(sample, patched, positive, one), "plain, 1 row")

    def edit(target: str, beside: str = "plain, 2 rows", **options: Any) -> Case:
        patched, positive, rows, _ = edited(pack, model, words, target, one, **options)
        return Case(partial(sample, patched, positive, rows), beside)

    def follows(keep: str) -> Case:
        """In the usual mode and window: the first run keeps its source, the others follow it."""
        wired = {"model": model, "latent": one, "steps": steps}
        kept = pack.node("P2PKeepSource", keep=keep, budget=64.0, **wired)[0]
        return edit(TARGET, window=0.4, kept_source=kept)

    longer = shapes.Words(shape, shape.text[0] + 1)
    return {
        "plain, 1 row": Case(partial(sample, model, text, one), "plain, 1 row"),
        "weights on values": weights(),
        "weights on scores": weights(scores=True),
        "weights for image queries": weights(image_only=True),
        "plain, 2 rows": Case(partial(sample, model, text, two), "plain, 2 rows"),
        "qk": edit(TARGET, mode="qk"),
        "hybrid, swap": edit(TARGET, mode="hybrid"),
        "hybrid, refine": edit(ADDED, mode="hybrid"),
        "hybrid, refine, maps": edit(ADDED, mode="hybrid", record_maps=True),
        "hybrid, refine, unequal lengths": edit(ADDED, mode="hybrid", encoder=longer),
        "auto": edit(TARGET, window=0.4),
        "auto, source kept light": follows("light"),
        "auto, source kept full": follows("full"),
    }


def measure(found: dict[str, Case], repeats: int, device: str) -> dict[str, Cost]:
    """Every run in turn, again and again; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    peaks: dict[str, list[int]] = {name: [] for name in found}
    made: dict[str, Tensor] = {}
    for repeat in range(repeats + 1):
        for name, case in found.items():
            memory = Memory(device)
            start = clock(device)
            made[name] = case.run()[0].float().cpu()
            taken = clock(device) - start
            if repeat:
                seconds[name].append(taken)
                peaks[name].append(memory.peak())
    costs = {}
    for name, case in found.items():
        plain = made[case.beside]
        times = [a / b for a, b in zip(seconds[name], seconds[case.beside], strict=True)]
        distance = float((made[name] - plain).norm() / plain.norm())
        medians = (statistics.median(part) for part in (seconds[name], times, peaks[name]))
        costs[name] = Cost(*medians, distance)
    return costs


def clock(device: str) -> float:
    """Seconds: of the processor on a CPU, which others may use too."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class Memory:
    """What is added at its peak, on a GPU or (Linux) in this process."""

    def __init__(self, device: str) -> None:
        self.device = device
        gc.collect()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _status("VmRSS")

    def peak(self) -> int:
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() - self.before
        return _status("VmHWM") - self.before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def probe_seconds(model: Any, run: Callable[[], Tensor], device: str) -> float:
    """What finding the layout out takes in a fresh model, its self-check included."""
    shapes = importlib.import_module("transformer_shapes")
    layouts = shapes.pack("nodes.host.families.layouts")
    model.model.diffusion_model.__dict__.pop(layouts.KEPT, None)
    taken = [0.0]
    timed = {name: getattr(layouts, name) for name in ("probe", "check")}

    def clocked(function: Callable, *args: Any) -> Any:
        start = clock(device)
        out = function(*args)
        taken[0] += clock(device) - start
        return out

    try:
        for name, function in timed.items():
            setattr(layouts, name, partial(clocked, function))
        run()
    finally:
        for name, function in timed.items():
            setattr(layouts, name, function)
    return taken[0]


def report(shape: str, found: dict[str, Case], costs: dict[str, Cost], setting: str) -> None:
    """A Markdown table on standard output."""
    rows = [("run", "seconds", "of plain", "peak MiB", "of plain", "first row beside plain")]
    rows.append(tuple("---" for _ in rows[0]))
    for name, cost in costs.items():
        peak = cost.peak / max(costs[found[name].beside].peak, 1)
        memory = f"{cost.peak / 2**20:.0f}", f"{peak:.2f}x"
        time_ = f"{cost.seconds:.3f}", f"{cost.times:.3f}x"
        rows.append((name, *time_, *memory, f"{cost.distance:.1e}"))
    lines = [f"\n{shape}: {setting}\n", *("| " + " | ".join(row) + " |" for row in rows)]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def bench(pack: Any, name: str, options: argparse.Namespace) -> None:
    """All runs of one shape, and its table."""
    shapes = importlib.import_module("transformer_shapes")
    shape = shapes.SHAPES[name]
    model = shapes.load(shape, options.blocks, DTYPES[options.dtype])
    found = cases(pack, model, shape, options.size, options.steps)
    if options.runs:
        wanted = {*options.runs, *(found[run].beside for run in options.runs)}
        found = {run: case for run, case in found.items() if run in wanted}
    costs = measure(found, options.repeats, options.device)
    acting = next(run for run, case in found.items() if case.beside != run)
    probe = probe_seconds(model, found[acting].run, options.device)
    step = costs[found[acting].beside].seconds / options.steps
    cpu = options.device == "cpu"
    place = f"{torch.get_num_threads()} threads" if cpu else torch.cuda.get_device_name()
    setting = (
        f"{options.blocks} of {shape.true_blocks} blocks, {options.size} px, {options.dtype}, "
        f"{options.steps} steps, {place}, torch {torch.__version__}, median of {options.repeats}. "
        f"Finding the layout out: {probe:.2f} s, {probe / step:.2f} steps ({found[acting].beside})"
    )
    report(name, found, costs, setting)


@torch.inference_mode()
def main() -> None:
    options = arguments()
    on_cpu = options.device == "cpu"
    comfy.cli_args.args.cpu = on_cpu
    comfy.cli_args.args.use_pytorch_cross_attention = True
    defaults = {"size": (512, 1024), "blocks": (3, 6), "steps": (1, 4), "repeats": (3, 5)}
    for name, (cpu, gpu) in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, cpu if on_cpu else gpu)
    from headless import Pack

    pack = Pack()
    for name in options.shape:
        bench(pack, name, options)
        gc.collect()


if __name__ == "__main__":
    main()
