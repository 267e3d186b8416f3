"""What an active edit costs: time and peak memory against plain sampling of the same rows.

    python dev.py python -- benchmarks/overhead.py --model sd15 --size 512

Runs of the same batch alternate: plain; edited by the pack; the same with a local blend and
recorded maps; an edit whose source is pinned to an inversion, and the inversion itself (one row);
and edited by a reference-style controller that materialises every attention map (the tests'
oracle). Medians are shown, and ratios to plain. Weights are random: cost does not depend on them.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import comfy.cli_args
import torch
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path += [str(REPOSITORY / "tests" / "support"), str(REPOSITORY)]

from headless import Pack  # noqa: E402

SOURCE = "a photo of a red cat that sits on a green mat"
TARGET = "a photo of a blue dog that sits on a green mat"
LONG = ", under very old trees with leaves"
SD15_SIZES = {
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=("sd15", "demo"), default="sd15")
    parser.add_argument("--size", type=int, default=512, help="pixels")
    parser.add_argument("--steps", type=int, default=1, help="euler steps of one run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--attention", choices=("pytorch", "default"), default="pytorch")
    parser.add_argument(
        "--runs", nargs="+", metavar="RUN", help="only these; plain is always there"
    )
    return parser.parse_args()


def load_model(pack: Pack, name: str) -> tuple:
    """A MODEL and a CLIP: SD1.5's shape with random weights, or the demo model."""
    import tiny_model

    if name == "demo":
        return pack.demo_model()[:2]
    return tiny_model.tiny_unet(**SD15_SIZES), tiny_model.tiny_clip()


def runs(pack: Pack, model, clip, size: int, steps: int) -> dict[str, Callable[[], object]]:
    """The runs, each of source and edit, cond and uncond: four rows, but for the inversion."""
    import oracle  # the tests' oracle materialises every map
    from scenes import Edit

    [edit] = pack.node("P2PWordSwap", clip=clip, source_prompt=SOURCE, target_prompt=TARGET)
    words = {"source_words": "cat", "target_words": "dog", "start_blend": 0.0}
    [blended] = pack.node("P2PLocalBlendMask", edit=edit, **words)
    latent = {"samples": torch.zeros(1, 4, size // 8, size // 8)}
    photo = {"samples": torch.randn(1, 4, size // 8, size // 8)}
    control = partial(pack.node, "P2PAttentionController", model=model)
    edited, positive, rows, _ = control(latent=latent, edit=edit, record_maps=False)
    mapped, mapped_positive, _, _ = control(latent=latent, edit=blended, record_maps=True)
    negative = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    source = clip.encode_from_tokens_scheduled(clip.tokenize(SOURCE))
    explicit = oracle.patched(model, [oracle.make_plan(clip, Edit("swap", SOURCE, TARGET))])
    levels = {"steps": steps, "scheduler": "normal"}
    invert = partial(
        pack.node, "P2PDDIMInvert", model=model, positive=source, latent=photo, **levels
    )
    inversion, *_ = pack.node("P2PNoiseInvert", latent=photo, model=model, seed=1, **levels)
    pinned, pinned_positive, pinned_rows, _ = control(
        latent=photo, edit=edit, record_maps=False, inversion=inversion
    )

    def sample(patched, positive=positive, rows=rows) -> torch.Tensor:
        return pack.sample(patched, positive, negative, rows, seed=1, steps=steps)["samples"]

    def long_edit() -> tuple:
        """A source of 3 chunks of 77 tokens, a target of 5; and both rows as plain prompts of 5."""
        texts = [SOURCE + LONG * (10 * (chunks - 1)) for chunks in (3, 5)]
        edit = pack.edit(model, clip, *texts, latent)
        return edit, [pack.text(clip, texts[1])[0][0].repeat(2, 1, 1), {}]

    long, long_plain = long_edit()

    return {
        "plain": lambda: sample(model),
        "plain, prompts of 5 chunks": lambda: sample(model, [long_plain]),
        "edited, prompts of 3 and 5 chunks": lambda: sample(long.model, long.positive),
        "edited": lambda: sample(edited),
        "edited, blend and maps": lambda: sample(mapped, mapped_positive),
        "DDIM inversion": invert,
        "edited photograph": lambda: sample(pinned, pinned_positive, pinned_rows),
        "explicit maps": lambda: sample(explicit),
    }


def peak_bytes(run: Callable[[], object]) -> int:
    """Memory that a run adds to the process at its peak, from the kernel's own counter (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


@torch.inference_mode()
def measure(variants: dict[str, Callable], repeats: int) -> dict[str, tuple[float, float]]:
    """Median seconds and median peak MiB of every variant, alternating."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    peaks: dict[str, list[int]] = {name: [] for name in variants}
    console = Console(stderr=True)
    for repeat in track(range(repeats + 1), "alternating runs", console=console):
        for name, run in variants.items():
            start = time.perf_counter()
            peak = peak_bytes(run)
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
                peaks[name].append(peak)
    return {
        name: (statistics.median(seconds[name]), statistics.median(peaks[name]) / 2**20)
        for name in variants
    }


def main() -> None:
    options = arguments()
    comfy.cli_args.args.use_pytorch_cross_attention = options.attention == "pytorch"
    pack = Pack()
    model, clip = load_model(pack, options.model)
    variants = runs(pack, model, clip, options.size, options.steps)
    if options.runs:
        variants = {name: variants[name] for name in ("plain", *options.runs)}
    results = measure(variants, options.repeats)
    plain_seconds, plain_peak = results["plain"]
    title = (
        f"{options.model}, {options.size} px, {options.attention} attention, "
        f"torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, median of {options.repeats}"
    )
    table = Table("run", "seconds", "of plain", "peak MiB", "of plain", box=MARKDOWN, title=title)
    for name, (seconds, peak) in results.items():
        ratios = f"{seconds / plain_seconds:.2f}x", f"{peak / plain_peak:.2f}x"
        table.add_row(name, f"{seconds:.2f}", ratios[0], f"{peak:.0f}", ratios[1])
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
