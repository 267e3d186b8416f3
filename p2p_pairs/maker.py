"""One host with one model, which makes the pairs of caption after caption."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headless import Pack
from p2p_core.pairs import Draw, Judged, select
from p2p_pairs.captions import Caption
from p2p_pairs.rows import Outcome, part_bytes, png, score_columns
from p2p_pairs.scorers import Scorer, make_scorer
from p2p_pairs.settings import DEMO, Settings

TRIES = 2  # of a caption that fails


class Maker:
    """Loads everything once; `make` is one caption's work, the same whoever does it."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.threads)
        self.settings, self.pack = settings, Pack()
        self.model, self.clip, self.vae = self._models()
        self.latent = self.pack.empty_latent(settings.width, settings.height, settings.together)
        self.scorer: Scorer = make_scorer(self.pack, settings)

    def _models(self) -> tuple[Any, Any, Any]:
        if self.settings.model == DEMO:
            return self.pack.demo_model()
        path = Path(self.settings.model)
        if not path.is_file():
            raise ValueError(f"There is no checkpoint {path}.")
        return self.pack.checkpoint(path)

    def make(self, caption: Caption) -> bytes:
        """The part of one caption: kept pairs and outcome. What fails is told in the outcome."""
        for attempt in range(1, TRIES + 1):
            try:
                with torch.inference_mode():
                    return self._made(caption)
            except Exception as error:
                logging.warning("%r failed (try %d): %s", caption.source, attempt, error)
                told = f"{type(error).__name__}: {error}"
        return part_bytes([], Outcome(caption.key, error=told), self.scorer.names)

    def _made(self, caption: Caption) -> bytes:
        source, edited, pairs = self._sampled(caption)
        if not (source.isfinite().all() and edited.isfinite().all()):
            raise ValueError("The pictures are not finite numbers.")
        source, edited = _eight_bit(source), _eight_bit(edited)  # what is judged is what is kept
        judged = self.scorer(caption.texts, caption.kind, source / 255, edited / 255)
        chosen = select(judged, self.settings.keep)
        rows = [
            _row(caption, pairs.draws[i], judged[i], source[i], edited[i], self.scorer)
            for i in chosen.kept
        ]
        outcome = Outcome(caption.key, chosen.tried, len(chosen.kept), chosen.reasons)
        return part_bytes(rows, outcome, self.scorer.names)

    def _sampled(self, caption: Caption) -> tuple[Tensor, Tensor, Any]:
        """The outputs of P2P Make Pairs."""
        s, recipe = self.settings, self.settings.recipe(caption.kind)
        own = dict(zip(("self_share_min", "self_share_max"), recipe.self_ or (), strict=False))
        return self.pack.node(
            "P2PMakePairs",
            model=self.model, clip=self.clip, vae=self.vae, latent=self.latent,
            source_caption=caption.source, edited_caption=caption.edited,
            instruction=caption.instruction, samples=s.samples, seed=s.seed, steps=s.steps,
            sampler_name=s.sampler, scheduler=s.scheduler,
            shares="one for each" if own else "one for both",
            cfg_min=recipe.cfg[0], cfg_max=recipe.cfg[1],
            share_min=recipe.cross[0], share_max=recipe.cross[1], **own,
        )  # fmt: skip


def _eight_bit(pictures: Tensor) -> Tensor:
    """Pictures in 0…1 as whole numbers 0…255, still float32."""
    return pictures.clamp(0, 1).mul(255).round()


def _row(
    caption: Caption, draw: Draw, judged: Judged, source: Tensor, edited: Tensor, scorer: Scorer
) -> dict[str, Any]:
    """A row of the table; pictures (H, W, 3) in 0…255."""
    key = f"{caption.key}_{draw.number:04d}"
    numbers = [judged.scores.get(name, math.nan) for name in scorer.names]
    return {
        "key": key,
        "original_prompt": caption.source,
        "edit_prompt": caption.instruction,
        "edited_prompt": caption.edited,
        "kind": caption.kind,
        "original_image": _picture(f"{key}_0.png", source),
        "edited_image": _picture(f"{key}_1.png", edited),
        "sample": draw.number,
        "seed": draw.seed,
        "cross_share": draw.cross,
        "self_share": draw.self_,
        "cfg": draw.cfg,
        **dict(zip(score_columns(scorer.names), numbers, strict=True)),
    }


def _picture(name: str, picture: Tensor) -> dict[str, Any]:
    return {"bytes": png(picture.byte().cpu().numpy()), "path": name}


def made_here(settings: Settings, captions: list[Caption]) -> Iterator[tuple[str, bytes]]:
    """(key, part) of caption after caption, in this process."""
    maker = Maker(settings)
    for caption in captions:
        yield caption.key, maker.make(caption)
