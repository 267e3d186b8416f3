"""What a dataset is made with: one JSON file, which the dataset keeps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2p_core.pairs import (
    CFG,
    DIRECTIONAL,
    IMAGE_CAPTION,
    IMAGE_IMAGE,
    KEPT,
    SAMPLES,
    SHARES,
    Range,
    Recipe,
    Thresholds,
)

DEMO = "demo"
FORMATS = ("parquet", "webdataset")


@dataclass(frozen=True)
class Settings:
    """All that the pairs depend on; the defaults are the paper's (arXiv:2211.09800).

    model: "demo", or a checkpoint file. shares: by the captions' kind ("" for all others), the
    ranges (cross low, high) or (cross low, high, self low, high). scorer: "clip", "plain" or
    "module:name" of one's own. block: captions of a shard.
    """

    model: str = DEMO
    width: int = 512
    height: int = 512
    seed: int = 0
    samples: int = SAMPLES
    together: int = 1
    steps: int = 100
    sampler: str = "euler_ancestral"
    scheduler: str = "karras"
    cfg: Range = CFG
    shares: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: {"": SHARES})
    keep: int = KEPT
    scorer: str = "clip"
    clip_vision: str = ""
    text_encoder: str = ""
    image_caption: float = IMAGE_CAPTION
    directional: float = DIRECTIONAL
    image_image: float = IMAGE_IMAGE
    block: int = 64
    threads: int = 1

    def __post_init__(self) -> None:
        """ValueError for settings that cannot be used."""
        for name in ("width", "height", "steps", "keep", "block", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        for kind in self.shares:
            self.recipe(kind)
        if "" not in self.shares:
            raise ValueError('shares need an entry "" for captions of any other kind.')

    def recipe(self, kind: str) -> Recipe:
        """What a caption of this kind is drawn from."""
        bounds = self.shares.get(kind, self.shares.get("", SHARES))
        if len(bounds) not in (2, 4):
            raise ValueError(f"shares of {kind!r} must be 2 or 4 numbers, got {list(bounds)}.")
        (cross_low, cross_high), own = bounds[:2], bounds[2:]
        return Recipe(
            self.samples,
            (cross_low, cross_high),
            (own[0], own[1]) if own else None,
            (self.cfg[0], self.cfg[1]),
            self.together,
        )

    @property
    def thresholds(self) -> Thresholds:
        """Of the CLIP scorer."""
        return Thresholds(self.image_caption, self.directional, self.image_image)

    def to_json(self) -> str:
        """The text of settings.json."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=dict) + "\n"

    def but(self, **changes: Any) -> Settings:
        """These settings with others in their place; None changes nothing."""
        return dataclasses.replace(self, **{k: v for k, v in changes.items() if v is not None})


def read_settings(path: Path) -> Settings:
    """Settings from a file; ValueError names the field that is wrong."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise ValueError(f"{where}: it is not JSON ({error.msg}).") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}).") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected an object with settings.")
    known = {entry.name: entry for entry in dataclasses.fields(Settings)}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{path}: there is no setting {name!r}. Known: {', '.join(known)}.")
        _check_type(f"{path}, {name}", value, getattr(Settings(), name))
    values["shares"] = {k: tuple(v) for k, v in values.get("shares", {"": SHARES}).items()}
    values["cfg"] = tuple(values.get("cfg", CFG))
    return Settings(**values)


def _check_type(where: str, value: Any, usual: Any) -> None:
    """ValueError unless a value of a JSON file is of the default's kind."""
    if isinstance(usual, Mapping):
        if not isinstance(value, dict):
            raise ValueError(f'{where}: expected an object such as {{"": [0.1, 0.9]}}.')
        for kind, bounds in value.items():
            _check_type(f"{where}, {kind!r}", bounds, SHARES)
    elif isinstance(usual, tuple):
        numbers = isinstance(value, list) and all(_is_number(one) for one in value)
        if not numbers or len(value) < 2:
            raise ValueError(f"{where}: expected a list of numbers, got {value!r}.")
    elif isinstance(usual, float) and _is_number(value):
        return
    elif type(value) is not type(usual):
        raise ValueError(f"{where}: expected such as {usual!r}, got {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
