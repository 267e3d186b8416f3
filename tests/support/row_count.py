"""How many rows the real UNet evaluates, seen by its own hook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tiny_model import shared_unet


@contextmanager
def counted() -> Iterator[list[int]]:
    """The rows of every call of the UNet, cond and uncond together."""
    rows: list[int] = []
    unet = shared_unet().model.diffusion_model
    hook = unet.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    try:
        yield rows
    finally:
        hook.remove()
