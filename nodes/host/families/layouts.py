"""A model's layouts, found when a run first needs them and kept with its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..compiled import eagerly, original
from .check import check
from .inputs import Inputs
from .probe import probe
from .record import REFERENCE, Kind, Layout, Run

KEPT = "_p2p_layouts"  # an attribute of the network: gone with it, shared by all its clones


def layout_of(model: Any, inputs: Inputs, options: dict) -> Layout:
    """The checked layout of the network for these inputs' text length; cheaper than one step.

    model: the host's BaseModel; inputs: of a model call (one row is used). Raises ValueError for a
    network that cannot be edited.
    """
    network = original(model.diffusion_model)
    known = network.__dict__.setdefault(KEPT, {})
    key = _key(network, inputs)
    if key not in known:
        one = inputs.rows([0])
        small = one.with_small_references()
        layout = _found(model, small, options)
        grown = with_references(layout, small.references, one.references)
        known[key] = _found(model, one, options) if grown is None else grown
    return known[key]


def _found(model: Any, one: Inputs, options: dict) -> Layout:
    """A probe's layout for one row, checked."""
    family = f"{type(model).__name__}, {type(original(model.diffusion_model)).__name__}"
    with eagerly():
        layout = probe(model._apply_model, one, options, family)
        check(model._apply_model, layout, one, options, family)
    return layout


def with_references(
    layout: Layout, small: Sequence[Tensor], whole: Sequence[Tensor]
) -> Layout | None:
    """The layout for whole reference pictures, from one for parts of them.

    None where their positions are not as many as the image's patches let expect: such a model must
    be tried with the whole ones.
    """
    calls = []
    for call in layout.calls:
        sides = [_grown(runs, call.patch, small, whole) for runs in (call.queries, call.keys)]
        if any(side is None for side in sides):
            if call.kind is not Kind.OTHER:
                return None
            sides = [call.queries, call.keys]
        queries, keys = (side for side in sides if side is not None)
        calls.append(replace(call, queries=queries, keys=keys))
    return replace(layout, calls=tuple(calls))


def _grown(
    runs: tuple[Run, ...], patch: int, small: Sequence[Tensor], whole: Sequence[Tensor]
) -> tuple[Run, ...] | None:
    """The runs of one side of a call, that of the references as long as those are."""
    places = [i for i, run in enumerate(runs) if run.role == REFERENCE]
    if not places or [one.shape for one in small] == [one.shape for one in whole]:
        return runs
    if len(places) > 1 or not patch or runs[places[0]].length != _positions(small, patch):
        return None
    grown = Run(REFERENCE, _positions(whole, patch))
    return tuple(grown if i == places[0] else run for i, run in enumerate(runs))


def _positions(pictures: Sequence[Tensor], patch: int) -> int:
    """How many positions pictures of these latent sizes take."""
    frames = (one.shape[2] if one.ndim == 5 else 1 for one in pictures)
    sides = ((-(-one.shape[-2] // patch), -(-one.shape[-1] // patch)) for one in pictures)
    return sum(n * h * w for n, (h, w) in zip(frames, sides, strict=True))


def _key(network: Any, inputs: Inputs) -> tuple:
    """What the layout depends on: the text's length, frames, and references beside the latent."""
    extras = tuple(
        (name, _shape(value, len(inputs.x), inputs.size))
        for name, value in sorted(inputs.extras.items())
    )
    frames = inputs.x.shape[2:-2]
    return type(network), inputs.text.shape[1:], frames, inputs.concat is None, extras


def _shape(value: Any, rows: int, size: tuple[int, int]) -> Any:
    if isinstance(value, list):  # pictures of their own size, also where it is the latent's
        return tuple(_shape(part, rows, (0, 0)) for part in value)
    if isinstance(value, Tensor):
        shape = tuple(value.shape[1:] if value.ndim and len(value) == rows else value.shape)
        return shape[:-2] if shape[-2:] == size else shape
    return value if isinstance(value, (int, float, str, bool)) else type(value)
