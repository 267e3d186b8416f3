"""Where ComfyUI and this repository are found."""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def prepare_path() -> None:
    """ComfyUI's folder first, this repository last, since both have a package `nodes`.

    COMFYUI_PATH names the folder; without it the one that this clone lies in as a custom node, and
    in the development environment its own.
    """
    here = str(REPOSITORY)
    folders = [os.environ.get("COMFYUI_PATH"), str(REPOSITORY.parents[1])]
    found = [f for f in folders if f and (Path(f) / "comfy" / "sd.py").is_file()]
    others = [path for path in sys.path if path not in ("", here, *found)]
    sys.path[:] = [*found[:1], *others, here]
