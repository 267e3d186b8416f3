"""Puts a ComfyUI tree on the path for the training programs; they use a GPU where there is one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch


def use_host() -> None:
    """Make `import comfy` work; the environment variable COMFYUI_PATH names the host's folder."""
    path = os.environ.get("COMFYUI_PATH")
    if path and path not in sys.path:
        if not (Path(path) / "comfy").is_dir():
            raise FileNotFoundError(f"COMFYUI_PATH={path} is not a ComfyUI folder.")
        sys.path.insert(0, path)
    import comfy.cli_args

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
