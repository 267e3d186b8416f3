"""The picture book as its users have it: the pack's nodes on the shipped weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from book.edits import Case, adds_words
from book.networks import CONFIG
from book.world import IMAGE_SIZE

sys.path.append(str(Path(__file__).resolve().parents[2]))
from headless import Pack  # noqa: E402

EDITS_AT_ONCE = 8  # sockets of P2P Attention Controller
EMPTY = {"samples": torch.zeros(1, 8, IMAGE_SIZE // 8, IMAGE_SIZE // 8)}


class Booth:
    """One variant of the model, with fixed sampling settings."""

    def __init__(self, weights: Path, variant: str, steps: int = 20, cfg: float = 6.0) -> None:
        self.pack, self.steps, self.cfg = Pack(), steps, cfg
        self.model, self.clip, self.vae = CONFIG.load_demo_model(weights, variant=variant)

    def text(self, prompt: str) -> list:
        """A conditioning."""
        return self.pack.text(self.clip, prompt)

    def decoded(self, samples: torch.Tensor) -> np.ndarray:
        """Pictures (B, H, W, 3) uint8."""
        return self.vae.decode(samples).clamp(0, 1).mul(255).round().byte().cpu().numpy()

    def encoded(self, picture: np.ndarray) -> dict:
        """The LATENT of a picture (H, W, 3) uint8."""
        return self.pack.encode(self.vae, pixels(picture))

    def sample(self, model: Any, positive: Any, latent: dict, seed: int, **more: Any) -> np.ndarray:
        """Pictures (rows, H, W, 3) uint8. more: negative, cfg, disable_noise."""
        negative, cfg = more.pop("negative", self.text("")), more.pop("cfg", self.cfg)
        samples = self.pack.host.common_ksampler(
            model, seed, self.steps, cfg, "euler", "normal", positive, negative, latent, **more
        )[0]["samples"]
        return self.decoded(samples)


class Studio(Booth):
    """Text to image, and the nodes that edit with it."""

    def __init__(self, weights: Path | None = None, steps: int = 20, cfg: float = 6.0) -> None:
        super().__init__(weights or CONFIG.WEIGHTS_PATH, CONFIG.TEXT_TO_IMAGE, steps, cfg)

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
            words = {f"{name}_words": words for name, words in case.blend._asdict().items()}
            threshold = words.pop("threshold_words")
            [edit] = self.pack.node("P2PLocalBlendMask", edit=edit, threshold=threshold, **words)
        return edit

    @torch.inference_mode()
    def pictures(self, cases: list[Case], seed: int) -> np.ndarray:
        """Source and edits (1 + n, H, W, 3) uint8; the cases share their source."""
        made = []
        for start in range(0, len(cases), EDITS_AT_ONCE):
            edits = [self.edit(case) for case in cases[start : start + EDITS_AT_ONCE]]
            run = self.pack.control(self.model, EMPTY, edits)
            made.append(self.sample(run.model, run.positive, run.latent, seed))
        return np.concatenate([made[0][:1], *(pictures[1:] for pictures in made)])

    @torch.inference_mode()
    def free(self, prompt: str, seed: int) -> np.ndarray:
        """A prompt's own picture, without control: (H, W, 3) uint8."""
        return self.sample(self.model, self.text(prompt), EMPTY, seed)[0]


class InstructStudio(Booth):
    """The variant for instructions."""

    def __init__(
        self, weights: Path | None = None, steps: int = 20, cfg: float = 3.0, image_cfg: float = 1.5
    ) -> None:
        super().__init__(weights or CONFIG.INSTRUCT_PATH, CONFIG.INSTRUCTIONS, steps, cfg)
        self.image_cfg = image_cfg

    @torch.inference_mode()
    def follow(self, picture: np.ndarray, instruction: str, seed: int) -> np.ndarray:
        """The picture (H, W, 3) uint8 after an instruction."""
        model, positive, negative, *_, latent = self.pack.node(
            "IP2PConditioning", model=self.model, positive=self.text(instruction),
            negative=self.text(""), vae=self.vae, image=pixels(picture), image_cfg=self.image_cfg,
        )  # fmt: skip
        return self.sample(model, positive, latent, seed, negative=negative)[0]


def pixels(picture: np.ndarray) -> torch.Tensor:
    """A picture (H, W, 3) uint8 as an IMAGE (1, H, W, 3) in 0 … 1."""
    return torch.from_numpy(picture.copy())[None].float() / 255
