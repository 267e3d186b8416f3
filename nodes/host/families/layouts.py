"""A model's layouts, found when a run first needs them and kept with its network."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .check import check
from .inputs import Inputs
from .probe import probe
from .record import Layout

KEPT = "_p2p_layouts"  # an attribute of the network: gone with it, shared by all its clones


def layout_of(model: Any, inputs: Inputs, options: dict) -> Layout:
    """The checked layout of the network for these inputs' text length; cheaper than one step.

    model: the host's BaseModel; inputs: of a model call (one row is used). Raises ValueError for a
    network that cannot be edited.
    """
    network = model.diffusion_model
    known = network.__dict__.setdefault(KEPT, {})
    key = _key(network, inputs)
    if key not in known:
        one = inputs.rows([0])
        family = f"{type(model).__name__}, {type(network).__name__}"
        layout = probe(model._apply_model, one, options, family)
        check(model._apply_model, layout, one, options, family)
        known[key] = layout
    return known[key]


def _key(network: Any, inputs: Inputs) -> tuple:
    """What the layout depends on: the text's length, frames, and references beside the latent."""
    extras = tuple(
        (name, _shape(value, len(inputs.x), inputs.size))
        for name, value in sorted(inputs.extras.items())
    )
    frames = inputs.x.shape[2:-2]
    return type(network), inputs.text.shape[1:], frames, inputs.concat is None, extras


def _shape(value: Any, rows: int, size: tuple[int, int]) -> Any:
    if isinstance(value, list):
        return tuple(_shape(part, rows, size) for part in value)
    if isinstance(value, Tensor):
        shape = tuple(value.shape[1:] if value.ndim and len(value) == rows else value.shape)
        return shape[:-2] if shape[-2:] == size else shape
    return value if isinstance(value, (int, float, str, bool)) else type(value)
