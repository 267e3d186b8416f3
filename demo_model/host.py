"""Puts a ComfyUI tree on the path for the training programs, set to run on the CPU."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import torch

_LIBRARY: torch.library.Library | None = None


def use_host() -> None:
    """Make `import comfy` work; the environment variable COMFYUI_PATH names the host's folder."""
    path = os.environ.get("COMFYUI_PATH")
    if path and path not in sys.path:
        if not (Path(path) / "comfy").is_dir():
            raise FileNotFoundError(f"COMFYUI_PATH={path} is not a ComfyUI folder.")
        sys.path.insert(0, path)
    _define_torchvision_operators()
    import comfy.cli_args

    comfy.cli_args.args.cpu = True


def _define_torchvision_operators() -> None:
    """Let a torchvision built for CUDA import beside a torch built for the CPU."""
    global _LIBRARY
    if _LIBRARY is None and not torch.cuda.is_available() and "torchvision" not in sys.modules:
        _LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            with contextlib.suppress(RuntimeError):  # already there: a matching build
                _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")
