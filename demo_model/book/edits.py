"""Edits of the picture book whose outcome is known: how they are made, and how they are scored."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter

from book.judge import Verdict, judge
from book.networks import CONFIG
from book.things import COLOURS, DRESSED, DYED, KINDS
from book.world import AUTUMNAL, IMAGE_SIZE, SETTINGS, Noun, Prompt, is_held_out

sys.path.append(str(Path(__file__).resolve().parents[2]))
from headless import Pack  # noqa: E402

GROWN = 6  # pixels around a thing that count as its own
OUTSIDE, THING = "outside", "thing"  # what an edit should leave as it is
EMPTY = {"samples": torch.zeros(1, 8, IMAGE_SIZE // 8, IMAGE_SIZE // 8)}


@dataclass(frozen=True)
class Case:
    """An edit: prompts before and after, shares of injection, what should stay.

    blend: words of source and target whose region may change. scale: words and their factor.
    windows: word windows, one a line.
    """

    kind: str
    source: Prompt
    target: Prompt
    cross: float = 0.8
    self_: float = 0.4
    stays: str = OUTSIDE
    blend: tuple[str, str] | None = None
    scale: tuple[str, float] | None = None
    windows: str = ""


class Score(NamedTuple):
    """success: the judge finds the target. kept: PSNR in dB of what should stay."""

    success: bool
    kept: float


def shows(verdict: Verdict, prompt: Prompt) -> bool:
    """Whether a picture shows what a one-thing prompt says."""
    noun = prompt.nouns[0]
    return (
        verdict.thing == noun.thing
        and noun.colour in (None, verdict.colour)
        and prompt.setting in (None, verdict.setting)
        and (verdict.hat, verdict.scarf) == (noun.clothes == "hat", noun.clothes == "scarf")
        and (verdict.autumn, verdict.pencil) == (prompt.autumn, prompt.pencil)
    )


def grown(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) and GROWN pixels around it."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.filter(ImageFilter.MaxFilter(2 * GROWN + 1))) > 0


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of 8-bit pictures or parts of them, in dB; 99 if they are the same."""
    error = float(((a.astype(float) - b) ** 2).mean()) if a.size else 0.0
    return min(10 * float(np.log10(255**2 / max(error, 1e-9))), 99.0)


def score(source: np.ndarray, edited: np.ndarray, case: Case) -> Score:
    """Compare an edit, (H, W, 3) uint8, with its source and with what was asked for."""
    before, after = judge(source), judge(edited)
    region = before.mask if case.stays == THING else ~grown(before.mask | after.mask)
    return Score(shows(after, case.target), psnr(source[region], edited[region]))


def adds_words(case: Case) -> bool:
    """Whether the target only adds words to the source."""
    words = iter(case.target.text.split())
    return all(word in words for word in case.source.text.split())


class Studio:
    """The picture book and the nodes that edit with it."""

    def __init__(self, weights: Path | None = None, steps: int = 20, cfg: float = 6.0) -> None:
        self.pack, self.steps, self.cfg = Pack(), steps, cfg
        self.model, self.clip, self.vae = CONFIG.load_demo_model(weights)

    def text(self, prompt: str) -> list:
        """A conditioning."""
        return self.pack.text(self.clip, prompt)

    def decoded(self, samples: torch.Tensor) -> np.ndarray:
        """Pictures (B, H, W, 3) uint8."""
        return self.vae.decode(samples).clamp(0, 1).mul(255).round().byte().cpu().numpy()

    def sample(self, model: Any, positive: Any, latent: dict, seed: int, **more: Any) -> np.ndarray:
        """Pictures (rows, H, W, 3) uint8. more: negative, cfg, disable_noise."""
        negative, cfg = more.pop("negative", self.text("")), more.pop("cfg", self.cfg)
        samples = self.pack.host.common_ksampler(
            model, seed, self.steps, cfg, "euler", "normal", positive, negative, latent, **more
        )[0]["samples"]
        return self.decoded(samples)

    def edit(self, case: Case) -> Any:
        """The P2P_EDIT of a case."""
        [edit] = self.pack.node(
            "P2PRefine" if adds_words(case) else "P2PWordSwap",
            clip=self.clip,
            source_prompt=case.source.text,
            target_prompt=case.target.text,
            cross_replace_steps=case.cross,
            self_replace_steps=case.self_,
            word_windows=case.windows,
        )
        if case.scale:
            words, scale = case.scale
            [edit] = self.pack.node("P2PReweight", edit=edit, words=words, scale=scale)
        if case.blend:
            words = {"source_words": case.blend[0], "target_words": case.blend[1]}
            [edit] = self.pack.node("P2PLocalBlendMask", edit=edit, threshold=0.3, **words)
        return edit

    @torch.inference_mode()
    def pictures(self, cases: list[Case], seed: int) -> np.ndarray:
        """Source and edits (1 + n, H, W, 3) uint8; the cases share their source."""
        run = self.pack.control(self.model, EMPTY, [self.edit(case) for case in cases])
        return self.sample(run.model, run.positive, run.latent, seed)

    @torch.inference_mode()
    def free(self, prompt: Prompt, seed: int) -> np.ndarray:
        """The prompt's own picture, without control: (H, W, 3) uint8."""
        return self.sample(self.model, self.text(prompt.text), EMPTY, seed)[0]


def thing_swap(prompt: Prompt, rng: Random) -> Case:
    """Another animal, or another thing of the same colour."""
    noun = prompt.nouns[0]
    group = DYED if noun.thing in DYED else [k for k in KINDS if k not in DYED]
    other = rng.choice([kind for kind in group if kind != noun.thing])
    return Case("thing", prompt, prompt.with_noun(thing=other), 0.6, 0.3)


def colour_swap(prompt: Prompt, rng: Random) -> Case:
    """Another colour."""
    colours = [colour for colour in COLOURS if colour != prompt.nouns[0].colour]
    return Case("colour", prompt, prompt.with_noun(colour=rng.choice(colours)), 0.8, 0.6)


def setting_swap(prompt: Prompt, rng: Random) -> Case:
    """Another place: the thing should stay."""
    other = rng.choice([setting for setting in SETTINGS if setting != prompt.setting])
    return Case("setting", prompt, prompt.with_setting(other), 0.8, 0.4, THING)


def season(prompt: Prompt, _rng: Random) -> Case:
    """Autumn comes."""
    return Case("season", prompt, replace(prompt, autumn=True), 0.8, 0.4, THING)


def dressing(prompt: Prompt, rng: Random) -> Case:
    """A hat or a scarf."""
    return Case("clothes", prompt, prompt.with_noun(clothes=rng.choice(("hat", "scarf"))), 0.8, 0.4)


EDITS: dict[str, tuple[Callable[[Prompt, Random], Case], tuple[str, ...]]] = {
    "thing": (thing_swap, tuple(KINDS)),
    "colour": (colour_swap, DYED),
    "setting": (setting_swap, tuple(KINDS)),
    "season": (season, tuple(KINDS)),
    "clothes": (dressing, DRESSED),
}


def cases(count: int, seed: int = 0) -> list[Case]:
    """Edits of prompts whose (thing, colour, setting) training never showed, the kinds in turn."""
    rng, made = Random(seed), []
    while len(made) < count:
        make, kinds = EDITS[list(EDITS)[len(made) % len(EDITS)]]
        kind = rng.choice(kinds)
        colour = rng.choice(list(COLOURS)) if kind in DYED else None
        setting = rng.choice(AUTUMNAL if make is season else list(SETTINGS))
        if is_held_out(kind, colour, setting) or make is season:
            made.append(make(Prompt((Noun(kind, colour),), setting), rng))
    return made
