"""What an edit costs, in time, rows and memory, beside plain sampling and beside peers.

    python dev.py python -- benchmarks/cost.py --model sd15 --out benchmarks/RESULTS.md

All runs alternate in one process, on one model of random weights: plain sampling of source and
edit (four rows at cfg 7.5); the pack's edit; the same with a local blend and recorded maps; a
photograph's edit, and what is left of it after the windows; edits of a kept source; and two that
materialise every attention map: the tests' oracle in ComfyUI, and attention processors in
diffusers, on the same weights. Ratios are to plain sampling.

Needs nothing but torch and ComfyUI (the environment variable COMFYUI_PATH names its folder, where
it is not importable by itself); without diffusers its rows are left out, with a word.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path += [str(REPOSITORY / "tests" / "support"), str(REPOSITORY)]

from cost_models import DIFFUSERS, PIXELS, Subject, subject, use_host  # noqa: E402

SOURCE = "a photo of a red cat that sits on a green mat"
TARGET = "a photo of a blue dog that sits on a green mat"
CHUNKS = (3, 4, 5)  # of the long prompts: 75 tokens each, of which a detail takes two
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
CFG, SEED = 7.5, 1
Sample = Callable[[], Tensor]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=tuple(PIXELS), default="sd15")
    parser.add_argument("--size", type=int, help="pixels; the model's own if not given")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--steps", type=int, default=1, help="euler steps of one run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--runs", nargs="+", metavar="RUN", help="only these, and plain")
    parser.add_argument("--out", type=Path, help="a Markdown file whose table is replaced")
    return parser.parse_args()


class Runs:
    """The runs of one subject, by name; what they have in common is made once."""

    def __init__(self, pack: Any, on: Subject, pixels: int, steps: int) -> None:
        self.pack, self.on, self.steps = pack, on, steps
        shape = (1, on.model.model.latent_format.latent_channels, pixels // 8, pixels // 8)
        self.latent = {"samples": torch.zeros(shape)}
        self.photo = {"samples": torch.randn(shape, generator=torch.Generator().manual_seed(3))}
        self.negative = pack.text(on.clip, "")
        self.plain = self.control(self.edit(), self.latent)
        self.networks = [on.model.model.diffusion_model]

    def edit(self, **windows: float) -> Any:
        prompts = {"source_prompt": SOURCE, "target_prompt": TARGET}
        return self.pack.node("P2PWordSwap", clip=self.on.clip, **prompts, **windows)[0]

    def control(self, edit: Any, latent: dict, **more: Any) -> Any:
        wired = {"model": self.on.model, "latent": latent, "edit": edit, "record_maps": False}
        return self.pack.node("P2PAttentionController", **{**wired, **more})

    def sample(self, model: Any, positive: list, latent: dict) -> Tensor:
        run = self.pack.sample(model, positive, self.negative, latent, SEED, self.steps, CFG)
        return run["samples"]

    def all(self) -> dict[str, Sample]:
        [[cross, extras]], rows = self.plain[1], self.plain[2]
        unmarked = [[cross, {"pooled_output": extras["pooled_output"]}]]  # an ordinary prompt
        blended = self.pack.node(
            "P2PLocalBlendMask", edit=self.edit(), source_words="cat", target_words="dog",
            start_blend=0.0,
        )[0]  # fmt: skip
        levels = {"steps": self.steps, "scheduler": "normal"}
        inverted = self.pack.node(
            "P2PNoiseInvert", model=self.on.model, latent=self.photo, seed=1, **levels
        )[0]
        photo = partial(self.control, latent=self.photo, inversion=inverted)
        over = self.edit(cross_replace_steps=0.0, self_replace_steps=0.0)
        controlled = {
            "edit": self.plain,
            "edit, blend and maps": self.control(blended, self.latent, record_maps=True),
            "edit of a photograph": photo(self.edit()),
            "the same after the windows": photo(over),
            **self.kept(),
        }
        return {
            "plain": partial(self.sample, self.on.model, unmarked, rows),
            **{name: partial(self.sample, *made[:3]) for name, made in controlled.items()},
            **self.long_prompts(),
            "explicit maps": partial(self.sample, self._explicit(), unmarked, rows),
            **self._peers(),
        }

    def long_prompts(self) -> dict[str, Sample]:
        """Two edits whose prompts have other numbers of chunks, and as many rows of the longest."""
        source, *targets = (
            text + ", detailed" * (36 * (count - 1) + 5)
            for text, count in zip((SOURCE, TARGET, TARGET), CHUNKS, strict=True)
        )
        edits = [
            self.pack.node(
                "P2PWordSwap", clip=self.on.clip, source_prompt=source, target_prompt=target
            )[0]
            for target in targets
        ]
        made = self.control(edits[0], self.latent, edit_2=edits[1])
        longest = self.pack.text(self.on.clip, targets[-1])
        shown = ", ".join(map(str, CHUNKS))
        return {
            f"plain, 3 rows of {CHUNKS[-1]} chunks": partial(
                self.sample, self.on.model, longest, made[2]
            ),
            f"2 edits, prompts of {shown} chunks": partial(self.sample, *made[:3]),
        }

    def kept(self) -> dict[str, Any]:
        """Edits of a kept source: the first round of all runs keeps it, the next ones follow it."""
        made = {}
        for kind in ("light", "full"):
            wired = {"model": self.on.model, "latent": self.latent, "steps": self.steps}
            source = self.pack.node("P2PKeepSource", keep=kind, budget=64.0, **wired)[0]
            made[f"edit of a source kept {kind}"] = self.control(
                self.edit(), self.latent, kept_source=source
            )
        return made

    def _explicit(self) -> Any:
        """The model with the tests' oracle in every attention layer."""
        import oracle
        from scenes import Edit

        plan = oracle.make_plan(self.on.clip, Edit("swap", TARGET, SOURCE))
        device, dtype = self.on.model.load_device, self.on.model.model.get_dtype()
        for name in ("mapper", "refine", "equalizer"):
            setattr(plan, name, getattr(plan, name).to(device, dtype))
        plan.windows = plan.windows.to(device)
        first_level = {"sdxl": 1}.get(self.on.name, 0)
        return oracle.patched(self.on.model, oracle.ExplicitAttention([plan], first_level))

    def _peers(self) -> dict[str, Sample]:
        if self.on.shape is None or importlib.util.find_spec("diffusers") is None:
            why = "the demo model has no likeness there" if self.on.shape is None else "not there"
            say(f"diffusers is left out: {why}.")
            return {}
        import comfy.model_management
        import comfy.sample
        import comfy.samplers
        from cost_peer import Control, peer

        [[cross, extras]], [[empty, no_extras]] = self.plain[1], self.negative
        comfy.model_management.load_models_gpu([self.on.model])
        device = self.on.model.load_device
        schedule = comfy.samplers.KSampler(self.on.model, self.steps, device, "euler", "normal", 1)
        sigmas = schedule.sigmas.to(device)
        noise = comfy.sample.prepare_noise(self.plain[2]["samples"], SEED, [0, 0]).to(device)
        sampling = self.on.model.model.model_sampling
        noise = sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), True)
        text = torch.cat([empty, empty, cross])
        pooled = torch.cat([no_extras["pooled_output"]] * 2 + [extras["pooled_output"]])
        made = peer(
            self.on.shape, DIFFUSERS[self.on.name], self.on.model, text, pooled, noise,
            sigmas.tolist(), CFG,
        )  # fmt: skip
        mapper = self.edit().prompt_edit.mapper.to(device, self.on.shape["dtype"])
        control = Control(self.steps, mapper, limit=1024)
        out = self.on.model.model.process_latent_out
        self.networks.append(made.unet)
        return {
            "plain in diffusers": lambda: out(made.sample(None).cpu()),
            "explicit maps in diffusers": lambda: out(made.sample(control).cpu()),
        }


@dataclass
class Measured:
    """One run's repeats. rows: evaluated in a step, on average."""

    seconds: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    rows: float = 0.0


@torch.inference_mode()
def measure(runs: dict[str, Sample], networks: list, steps: int, repeats: int, device: str):
    """Every run once to warm up, then alternating; what was measured, by name."""
    found = {name: Measured() for name in runs}
    for repeat in range(repeats + 1):
        say(f"round {repeat} of {repeats}")
        for name, run in runs.items():
            with counting(networks) as rows:
                seconds, peak = timed(run, device)
            if repeat:  # the first round warms up
                found[name].seconds.append(seconds)
                found[name].peaks.append(peak)
                found[name].rows = sum(rows) / steps
    return found


@contextmanager
def counting(networks: list) -> Iterator[list[int]]:
    """The rows of every call of these networks, seen by their own hooks."""
    rows: list[int] = []

    def see(module: Any, inputs: tuple) -> None:
        rows.append(len(inputs[0]))

    hooks = [network.register_forward_pre_hook(see) for network in networks]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def timed(run: Sample, device: str) -> tuple[float, int]:
    """Seconds of a run, and the bytes that it added at its peak: of the GPU, or of the process.

    On a CPU these are seconds of its own time, which other programs on the machine do not lengthen.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before, start = torch.cuda.memory_allocated(), time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - start, torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak counter (Linux)
    before, start = _status("VmRSS"), time.process_time()
    run()
    return time.process_time() - start, _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def table(found: dict[str, Measured], steps: int) -> str:
    """Markdown: medians, and how far the repeats spread around them."""
    plain = statistics.median(found["plain"].seconds)
    lines = [
        "| run | ms a step | spread | of plain | rows a step | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, run in found.items():
        median = statistics.median(run.seconds)
        spread = (max(run.seconds) - min(run.seconds)) / median
        shown = float(f"{median / steps * 1000:.4g}")
        peak = statistics.median(run.peaks) / 2**20
        lines.append(
            f"| {name} | {shown:g} | {spread:.0%} | {median / plain:.2f}x "
            f"| {run.rows:.3g} | {peak:.0f} |"
        )
    return "\n".join(lines)


def conditions(options: argparse.Namespace, pixels: int) -> str:
    """One line on what was measured where."""
    import comfyui_version

    where = (
        torch.cuda.get_device_name()
        if options.device == "cuda"
        else f"processor time of {torch.get_num_threads()} threads of {platform.machine()}"
    )
    return (
        f"{options.model}, {pixels} px, {options.dtype}, {options.steps} steps, {where}, torch "
        f"{torch.__version__}, ComfyUI {comfyui_version.__version__}, medians of "
        f"{options.repeats}, alternating."
    )


def replace_section(path: Path, key: str, text: str) -> None:
    """Put a text between two comments of a Markdown file that hold a key, at the end if new."""
    begin, end = f"<!-- {key} -->", f"<!-- end of {key} -->"
    whole, content = path.read_text() if path.exists() else "", f"{begin}\n{text}\n{end}"
    pattern = re.compile(re.escape(begin) + ".*" + re.escape(end), re.DOTALL)
    found = pattern.search(whole)
    new = whole[: found.start()] + content + whole[found.end() :] if found else None
    path.write_text(new or f"{whole.rstrip()}\n\n{content}\n")


def distances(runs: dict[str, Sample]) -> str:
    """How far the results of others are from the pack's: do they compute the same?"""
    others = [name for name in runs if name.startswith("explicit")]
    if not others:
        return ""
    own = runs["edit"]().double()
    found = [f"{name} {float((runs[name]() - own).norm() / own.norm()):.1e}" for name in others]
    return f"Relative distance from the edit's latents: {', '.join(found)}."


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> None:
    options = arguments()
    use_host(options.device)
    from headless import Pack

    pack = Pack()
    on = subject(options.model, pack, DTYPES[options.dtype])
    pixels = options.size or PIXELS[options.model]
    made = Runs(pack, on, pixels, options.steps)
    runs = made.all()
    if options.runs:
        runs = {name: runs[name] for name in ("plain", *options.runs)}
    found = measure(runs, made.networks, options.steps, options.repeats, options.device)
    key = f"cost {options.model} {options.device} {options.dtype} {options.steps}"
    with torch.inference_mode():
        same = distances(runs) if "edit" in runs else ""
    text = "\n\n".join(
        filter(None, [conditions(options, pixels), table(found, options.steps), same])
    )
    sys.stdout.write(f"{text}\n")
    if options.out:
        replace_section(options.out, key, text)


if __name__ == "__main__":
    main()
