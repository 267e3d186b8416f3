"""What a picture of the book shows, found by a small classifier (`train_judge.py` trains it).

It sees the things (one or two), their mask, the setting, the season, the style, clothes and
the colour of a recolourable thing. Sizes and places follow from the mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from book.things import COLOURS, KINDS
from book.world import CLOTHES, IMAGE_SIZE, SETTINGS

WEIGHTS_PATH = Path(__file__).resolve().parent / "judge.safetensors"
HEADS = {
    "thing": len(KINDS),
    "setting": len(SETTINGS),
    "colour": len(COLOURS),
    "clothes": len(CLOTHES),  # each by itself
    "look": 2,  # autumn, pencil, each by itself
}
MASK_SIDE = 64


def _layer(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


class Judge(nn.Module):
    """Pictures (B, 3, 128, 128) in [0, 1] to the logits of every head and of the mask."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(_layer(3, 16, 2), _layer(16, 24))  # 64
        self.middle = nn.Sequential(_layer(24, 32, 2), _layer(32, 32), _layer(32, 64, 2))  # 16
        self.coarse = nn.Sequential(_layer(64, 64), _layer(64, 96, 2), _layer(96, 96))  # 8
        self.heads = nn.ModuleDict(
            {name: nn.Linear(2 * 96 + 64, count) for name, count in HEADS.items()}
        )
        self.up = nn.ModuleDict(
            {
                "coarse": nn.Conv2d(96, 24, 1),
                "middle": nn.Conv2d(64, 24, 1),
                "fine": nn.Conv2d(24, 24, 1),
                "mask": nn.Conv2d(24, 1, 3, 1, 1),
            }
        )

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Logits by head (B, n), and 'mask' (B, 64, 64)."""
        fine = self.fine(pictures)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        pooled = torch.cat((coarse.mean((2, 3)), coarse.amax((2, 3)), middle.amax((2, 3))), 1)
        mixed = F.interpolate(self.up["coarse"](coarse), scale_factor=2.0) + self.up["middle"](
            middle
        )
        mixed = F.interpolate(mixed, scale_factor=4.0, mode="bilinear") + self.up["fine"](fine)
        mask = self.up["mask"](mixed.relu())[:, 0]
        return {**{name: head(pooled) for name, head in self.heads.items()}, "mask": mask}


@dataclass(frozen=True)
class Verdict:
    """What one picture shows; things: by falling likelihood, with their probabilities."""

    things: tuple[tuple[str, float], ...]
    setting: str
    colour: str
    hat: bool
    scarf: bool
    autumn: bool
    pencil: bool
    mask: np.ndarray  # (128, 128) bool

    @property
    def thing(self) -> str:
        """The likeliest thing."""
        return self.things[0][0]

    @property
    def pair(self) -> set[str]:
        """The two likeliest things."""
        return {name for name, _ in self.things[:2]}

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the mask (x, y) in pixels; the picture's where nothing is there."""
        if not self.mask.any():
            return IMAGE_SIZE / 2, IMAGE_SIZE / 2
        rows, columns = np.where(self.mask)
        return float(columns.mean()), float(rows.mean())

    @property
    def side(self) -> int:
        """Longer side of the mask's box in pixels, without its thinnest ends."""
        if not self.mask.any():
            return 0
        rows, columns = np.where(self.mask)
        return int(max(np.ptp(np.percentile(axis, (1, 99))) for axis in (rows, columns)))


@cache
def load_judge(path: Path = WEIGHTS_PATH) -> Judge:
    """The trained judge."""
    judge = Judge()
    judge.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=False)
    return judge.eval()


def _verdict(logits: dict[str, Tensor], index: int) -> Verdict:
    """One row of the judge's output."""
    row = {name: values[index] for name, values in logits.items()}
    shares, order = row["thing"].softmax(0).topk(3)
    names = list(KINDS)
    things = tuple((names[i], float(s)) for i, s in zip(order.tolist(), shares, strict=True))
    hat, scarf = (row["clothes"] > 0).tolist()
    autumn, pencil = (row["look"] > 0).tolist()
    mask = F.interpolate(row["mask"][None, None], scale_factor=2.0, mode="bilinear")[0, 0] > 0
    setting, colour = int(row["setting"].argmax()), int(row["colour"].argmax())
    return Verdict(
        things, list(SETTINGS)[setting], list(COLOURS)[colour], hat, scarf, autumn, pencil,
        mask.numpy(),
    )  # fmt: skip


@torch.no_grad()
def judge_pictures(pictures: np.ndarray, network: Judge | None = None) -> list[Verdict]:
    """Verdicts on pictures (B, 128, 128, 3) uint8."""
    batch = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 255
    logits = (network or load_judge())(batch)
    return [_verdict(logits, index) for index in range(len(pictures))]


def judge(picture: np.ndarray) -> Verdict:
    """The verdict on one picture (128, 128, 3) uint8."""
    return judge_pictures(picture[None])[0]
