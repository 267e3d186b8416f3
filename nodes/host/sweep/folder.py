"""The folder of a sweep: pictures and tables, written as they come, found again by a rerun."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import folder_paths
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ....p2p_core.sweep import spelled_setting
from ..inversion.places import checked_name

ABOUT = "sweep.json"
Setting = Mapping[str, Any]


class SweepFolder:
    """A folder inside the host's output folder that belongs to one sweep alone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def subfolder(self) -> str:
        """Its place inside the output folder, as the page asks for it."""
        return self.path.relative_to(folder_paths.get_output_directory()).as_posix()

    def picture(self, seed: int, setting: Setting | None = None) -> Tensor | None:
        """A setting's picture, or a seed's source: (H, W, 3) in 0…1; None if none can be read."""
        try:
            with Image.open(self.path / _file_name(seed, setting)) as image:
                values = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError):  # Pillow's word for a damaged PNG
            return None
        return torch.from_numpy(values.astype(np.float32) / 255)

    def keep(self, picture: Tensor, seed: int, setting: Setting | None = None) -> Tensor:
        """Write such a picture (H, W, 3); returns it as it will be read again, at 8 bits."""
        values = (picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        self.write(_file_name(seed, setting), values)
        return values.float() / 255

    def write(self, name: str, content: str | Tensor) -> None:
        """A file that is there either as a whole or not at all. Pictures: (H, W, 3) uint8."""
        temporary = self.path / f".{uuid4().hex}.tmp"
        with _said(self.path):
            try:
                if isinstance(content, str):
                    temporary.write_text(content, encoding="utf-8")
                else:
                    Image.fromarray(content.numpy()).save(temporary, format="PNG")
                os.replace(temporary, self.path / name)
            finally:
                temporary.unlink(missing_ok=True)


def sweep_folder(name: str, identity: str | None, about: Mapping[str, Any]) -> SweepFolder:
    """The folder of this name that has the same identity, else a new one with a number behind it.

    identity: None is like no other. about: what is swept, for people. Raises ValueError for a name
    that cannot be used, and where nothing can be written.
    """
    root = Path(folder_paths.get_output_directory()) / checked_name(name)
    for path in _candidates(root):
        known = _identity(path)
        if identity is not None and known == identity:
            return SweepFolder(path)
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            break
    folder = SweepFolder(path)
    with _said(path):
        path.mkdir(parents=True, exist_ok=True)
    folder.write(ABOUT, json.dumps({"identity": identity, **about}, indent=1, ensure_ascii=False))
    return folder


def _candidates(root: Path) -> Iterator[Path]:
    yield root
    for number in count(2):
        yield root.with_name(f"{root.name}_{number}")


def _identity(path: Path) -> str | None:
    try:
        return json.loads((path / ABOUT).read_text(encoding="utf-8")).get("identity")
    except (OSError, ValueError, AttributeError):
        return None


def _file_name(seed: int, setting: Setting | None) -> str:
    """Such as "seed 4, cross_replace_steps 0.2.png", and "seed 4, source.png"."""
    if setting is None:
        return f"seed {seed}, source.png"
    swept = spelled_setting({name: value for name, value in setting.items() if name != "seeds"})
    return f"seed {seed}, {swept or 'edit'}.png"


@contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"The sweep's folder {path} could not be written: {error.strerror or error}. Free "
            "space or choose another folder; queued again, the sweep goes on with what is there."
        ) from error
