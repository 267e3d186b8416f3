"""Edits of the painted world whose outcome is known, and how an edited picture is scored."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path += [str(REPOSITORY / name) for name in ("demo_model", "")]

from judge import Verdict, judge  # noqa: E402
from world import COLOURS, SHAPES, Prompt, held_out_prompts  # noqa: E402

from headless import Pack  # noqa: E402

HALVED, REMOVED = "word scaled to 0.5", "word scaled to 0"
GROWN = 6  # pixels around the object that count as its own


@dataclass(frozen=True)
class Case:
    """An edit whose outcome is known.

    words: of source and target, that mark the object. scale: of the word "striped". windows:
    cross_replace_steps and self_replace_steps; what changes the outline gets more freedom.
    """

    kind: str
    source: Prompt
    target: Prompt
    words: tuple[str, str]
    scale: float = 1.0
    windows: tuple[float, float] = (0.8, 0.4)

    @property
    def new_shape(self) -> bool:
        return self.source.nouns[0].shape != self.target.nouns[0].shape


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
    target = prompt.with_noun(shape=shape)
    return Case("shape swap", prompt, target, (colour, colour), windows=(0.5, 0.2))


def adjective_added(prompt: Prompt, step: int) -> Case:
    colour = prompt.nouns[0].colour or ""
    words = (colour, f"{colour}, striped")
    return Case("adjective added", prompt, prompt.with_noun(texture="striped"), words)


def word_halved(prompt: Prompt, step: int) -> Case:
    """An added adjective at half strength: it still shows."""
    return replace(adjective_added(prompt, step), kind=HALVED, scale=0.5, windows=(0.5, 0.4))


def word_removed(prompt: Prompt, step: int) -> Case:
    """The texture's word at 0: the texture should go."""
    colour = prompt.nouns[0].colour or ""
    source = prompt.with_noun(texture="striped")
    return Case(REMOVED, source, prompt, (colour, colour), scale=0.0)


KINDS: tuple[Callable[[Prompt, int], Case], ...] = (
    colour_swap,
    shape_swap,
    adjective_added,
    word_halved,
    word_removed,
)


def cases(count: int) -> list[Case]:
    """Edits of prompts whose combination training never showed, the kinds in turn."""
    prompts = held_out_prompts(count, seed=11)
    return [KINDS[i % len(KINDS)](prompt, 1 + i % 5) for i, prompt in enumerate(prompts)]


def arrived(verdict: Verdict, target: Prompt) -> bool:
    """Whether a picture shows what the target prompt says."""
    noun = target.nouns[0]
    shown = (verdict.shape, verdict.colour, verdict.texture, verdict.background)
    return shown == (noun.shape, noun.colour, noun.texture, target.background)


def outside(mask: np.ndarray, new_shape: bool) -> np.ndarray:
    """Where an edit should change nothing, (H, W) bool: away from the source's object.

    A new shape may fill the whole square around the old one.
    """
    if new_shape and mask.any():
        rows, columns = np.where(mask)
        middle = (rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2
        half = (max(np.ptp(rows), np.ptp(columns)) + 1) // 2
        mask = mask.copy()
        top, left = (max(at - half, 0) for at in middle)
        mask[top : middle[0] + half + 1, left : middle[1] + half + 1] = True
    return ~ndimage.binary_dilation(mask, iterations=GROWN)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of 8-bit pictures or parts of them, in dB; 99 if they are the same."""
    error = float(((a.astype(float) - b) ** 2).mean()) if a.size else 0.0
    return min(10 * float(np.log10(255**2 / max(error, 1e-9))), 99.0)


def score(source: np.ndarray, edited: np.ndarray, case: Case) -> Score:
    """Compare an edit, (H, W, 3) uint8, with its source and with what was asked for."""
    before, after = judge(source), judge(edited)
    empty = np.zeros(source.shape[:2], bool)
    masks = [empty if verdict.mask is None else verdict.mask for verdict in (before, after)]
    away = outside(masks[0], case.new_shape)
    difference = np.abs(source.astype(float) - edited)[away].max(axis=-1)
    union = masks[0] | masks[1]
    return Score(
        arrived(after, case.target),
        psnr(source[away], edited[away]),
        float((difference > 8).mean()) if difference.size else 0.0,
        float((masks[0] & masks[1]).sum() / max(union.sum(), 1)),
    )


def make_edit(pack: Pack, clip: Any, case: Case) -> Any:
    """The P2P_EDIT of a case."""
    texts = {"source_prompt": case.source.text, "target_prompt": case.target.text}
    cross, self_replace = case.windows
    windows = {"cross_replace_steps": cross, "self_replace_steps": self_replace}
    if case.scale == 0:
        texts["target_prompt"] = case.source.text
    adds = "striped" in case.target.text and "striped" not in case.source.text
    name = "P2PRefine" if adds else "P2PWordSwap"
    [edit] = pack.node(name, clip=clip, **texts, **windows)
    if case.scale != 1:
        [edit] = pack.node("P2PReweight", edit=edit, words="striped", scale=case.scale)
    return edit
