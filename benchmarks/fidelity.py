"""Does the edit arrive, and does the rest stay? Held-out edits on the demo model, judged.

    python dev.py python -- benchmarks/fidelity.py --count 300

Every edit is made three ways from one noise: the target prompt without control, Prompt-to-Prompt,
and Prompt-to-Prompt with a local blend. Columns:

- success: the judge finds the target's shape, colour, texture and background;
- outside PSNR: against the source picture, away from the objects of both (their union, grown);
- changed: share of those pixels that differ by more than 8 of 255;
- structure: overlap (IoU) of the object's region in source and edit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import ndimage

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path += [str(REPOSITORY / "tests" / "support"), str(REPOSITORY / "demo_model")]

from judge import Verdict, judge  # noqa: E402
from world import COLOURS, SHAPES, Prompt, held_out_prompts  # noqa: E402

METHODS = ("no control", "P2P", "P2P + blend")
GROWN = 6  # pixels around the objects that count as theirs


@dataclass(frozen=True)
class Case:
    """An edit whose outcome is known. words: of source and target, that mark the object."""

    kind: str
    source: Prompt
    target: Prompt
    words: tuple[str, str]


class Score(NamedTuple):
    success: bool
    psnr: float
    changed: float
    structure: float


def other(name: str, names: list[str], step: int) -> str:
    return names[(names.index(name) + step) % len(names)]


def colour_swap(prompt: Prompt, step: int) -> Case:
    noun = prompt.nouns[0]
    names = [name for name in COLOURS if name != prompt.background]
    colour = noun.colour or ""
    target = prompt.with_noun(colour=other(colour, names, step))
    return Case("colour swap", prompt, target, (colour, target.nouns[0].colour or ""))


def shape_swap(prompt: Prompt, step: int) -> Case:
    noun = prompt.nouns[0]
    shape = other(noun.shape, list(SHAPES), step)
    colour = noun.colour or ""
    return Case("shape swap", prompt, prompt.with_noun(shape=shape), (colour, colour))


def adjective_added(prompt: Prompt, step: int) -> Case:
    colour = prompt.nouns[0].colour or ""
    words = (colour, f"{colour}, striped")
    return Case("adjective added", prompt, prompt.with_noun(texture="striped"), words)


def word_scaled(prompt: Prompt, step: int) -> Case:
    """The texture's word at 0: the texture must go."""
    colour = prompt.nouns[0].colour or ""
    return Case("word scaled to 0", prompt.with_noun(texture="striped"), prompt, (colour, colour))


KINDS: tuple[Callable[[Prompt, int], Case], ...] = (
    colour_swap,
    shape_swap,
    adjective_added,
    word_scaled,
)


def cases(count: int) -> list[Case]:
    """Edits of prompts whose combination training never showed, the kinds in turn."""
    prompts = held_out_prompts(count, seed=11)
    return [KINDS[i % len(KINDS)](prompt, 1 + i % 5) for i, prompt in enumerate(prompts)]


class Studio:
    """The demo model and the nodes that edit with it."""

    def __init__(self, options: argparse.Namespace) -> None:
        import comfy.utils
        import host_run

        import nodes

        host_run.load_host()
        comfy.utils.PROGRESS_BAR_ENABLED = False
        self.options = options
        self.host = nodes
        self.model, self.clip, self.vae = self.node("P2PDemoModel")

    def node(self, name: str, **inputs):
        return self.host.NODE_CLASS_MAPPINGS[name].execute(**inputs).args

    def edit(self, case: Case):
        texts = {"source_prompt": case.source.text, "target_prompt": case.target.text}
        windows = {
            "cross_replace_steps": self.options.cross,
            "self_replace_steps": self.options.self_replace,
        }
        if case.kind.startswith("word scaled"):
            text = case.source.text
            same = {"source_prompt": text, "target_prompt": text}
            [edit] = self.node("P2PWordSwap", clip=self.clip, **same, **windows)
            return self.node("P2PReweight", edit=edit, words="striped", scale=0.0)[0]
        name = "P2PRefine" if case.kind == "adjective added" else "P2PWordSwap"
        return self.node(name, clip=self.clip, **texts, **windows)[0]

    def sample(self, model, positive, latent: dict, seed: int) -> np.ndarray:
        """Pictures (rows, H, W, 3) uint8."""
        o = self.options
        negative = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(""))
        settings = (o.steps, o.cfg, "euler", "normal", positive, negative, latent)
        samples = self.host.common_ksampler(model, seed, *settings)[0]["samples"]
        pictures = self.vae.decode(samples).clamp(0, 1) * 255
        return pictures.round().byte().cpu().numpy()

    def pictures(self, case: Case, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The source and the edit made by every method."""
        edit = self.edit(case)
        source_words, target_words = case.words
        [blended] = self.node(
            "P2PLocalBlendMask",
            edit=edit,
            source_words=source_words,
            target_words=target_words,
            threshold=self.options.threshold,
        )
        latent = {"samples": torch.zeros(1, 4, 16, 16)}
        model, positive, rows, _ = self.node(
            "P2PAttentionController", model=self.model, latent=latent, edit=edit, edit_2=blended
        )
        source, p2p, blend = self.sample(model, positive, rows, seed)
        plain = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(case.target.text))
        [free] = self.sample(self.model, plain, latent, seed)
        return source, dict(zip(METHODS, (free, p2p, blend), strict=True))


def arrived(verdict: Verdict, target: Prompt) -> bool:
    """Whether a picture shows what the target prompt says."""
    noun = target.nouns[0]
    shown = (verdict.shape, verdict.colour, verdict.texture, verdict.background)
    return shown == (noun.shape, noun.colour, noun.texture, target.background)


def score(source: np.ndarray, edited: np.ndarray, target: Prompt) -> Score:
    """Compare an edit with its source and with what was asked for."""
    before, after = judge(source), judge(edited)
    empty = np.zeros(source.shape[:2], bool)
    masks = [empty if verdict.mask is None else verdict.mask for verdict in (before, after)]
    union = masks[0] | masks[1]
    outside = ~ndimage.binary_dilation(union, iterations=GROWN)
    difference = np.abs(source.astype(float) - edited)[outside]
    error = float((difference**2).mean()) if outside.any() else 0.0
    psnr = min(10 * np.log10(255**2 / max(error, 1e-9)), 99.0)
    changed = float((difference.max(axis=-1) > 8).mean()) if outside.any() else 0.0
    structure = float((masks[0] & masks[1]).sum() / max(union.sum(), 1))
    return Score(arrived(after, target), float(psnr), changed, structure)


def table(scores: dict[tuple[str, str], list[Score]], title: str) -> Table:
    columns = ("edit", "method", "n", "success", "outside PSNR", "changed", "structure")
    result = Table(*columns, box=MARKDOWN, title=title)
    for (kind, method), rows in scores.items():
        mean = [statistics.fmean(column) for column in zip(*rows, strict=True)]
        shown = f"{100 * mean[0]:.1f} %", f"{mean[1]:.1f} dB", f"{100 * mean[2]:.1f} %"
        result.add_row(kind, method, str(len(rows)), *shown, f"{mean[3]:.2f}")
    return result


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=6.0)
    parser.add_argument("--cross", type=float, default=0.8)
    parser.add_argument("--self-replace", type=float, default=0.4)
    parser.add_argument("--threshold", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pictures", type=Path, help="also write the first edits as a sheet")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    studio = Studio(options)
    scores: dict[tuple[str, str], list[Score]] = defaultdict(list)
    sheet = []
    for seed, case in enumerate(track(cases(options.count), console=Console(stderr=True))):
        source, edits = studio.pictures(case, seed)
        for method, picture in edits.items():
            result = score(source, picture, case.target)
            scores[case.kind, method].append(result)
            scores["all", method].append(result)
        if len(sheet) < 12:
            sheet.append(np.concatenate([source, *edits.values()], axis=1))
    title = f"demo model, {options.count} held-out edits, {options.steps} steps"
    Console(width=110).print(table(scores, title))
    if options.pictures:
        from PIL import Image

        Image.fromarray(np.concatenate(sheet)).save(options.pictures)


if __name__ == "__main__":
    main()
