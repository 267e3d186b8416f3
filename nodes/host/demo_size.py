"""The demo models at their own size: a latent of it, and a word where a run is far off it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .messages import Report

PIXELS = 128  # a side of what the models were trained on
CELL = 8  # pixels of a latent's cell
FAR = 2.0  # times as many pixels as that, or as few


def empty_latent(model: Any) -> dict[str, Any]:
    """One empty picture of the model's own size and channels: samples (1, C, 16, 16)."""
    channels = model.get_model_object("latent_format").latent_channels
    return {"samples": torch.zeros(1, channels, PIXELS // CELL, PIXELS // CELL)}


def watched(model: Any, report: Report) -> Any:
    """The model, reporting runs at sizes that it cannot paint well."""
    patched = model.clone()
    look = partial(_look, report)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "p2p_demo_size", look)
    return patched


def _look(report: Report, executor: Callable, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    height, width = (side * CELL for side in noise.shape[-2:])
    share = height * width / PIXELS**2
    if not 1 / FAR <= share <= FAR:
        report(
            f"Sampled at {width}x{height}: the demo model knows pictures of {PIXELS}x{PIXELS} "
            "alone, and paints little more than noise elsewhere. Wire this node's latent instead."
        )
    return executor(noise, *args, **kwargs)
