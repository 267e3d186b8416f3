"""Packs that evaluate the batch in parts: tiles of the picture, prompts or rows by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from comfy.model_patcher import ModelPatcher
from host_run import Link
from scenes import Scene
from torch import Tensor

from .companion import SENTENCE, Companion

TILE, STEP = 12, 4  # of the latent: overlapping tiles
Wrapper = Callable[[Callable, dict], Tensor]


def with_wrapper(wrapper: Wrapper, s: Scene, model: Link) -> Link:
    """The one wrapper around the model's function that a model can have."""

    def add(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        model.set_model_unet_function_wrapper(wrapper)
        return model

    return s.graph.call(add, model)


def rows_of(inputs: dict, choose: Callable[[Tensor], Tensor], rows: int) -> dict:
    """The model's inputs with something done to every tensor that has a row for each picture."""

    def chosen(value: object) -> object:
        if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
            return {k: [None if x is None else chosen(x) for x in v] for k, v in value.items()}
        return choose(value) if isinstance(value, Tensor) and len(value) == rows else value

    return {name: chosen(value) for name, value in inputs.items()}


def cropped(inputs: dict, spot: tuple, size: torch.Size) -> dict:
    """What lies beside the latent (an inpainted picture) in one tile."""
    return {
        k: v[spot] if isinstance(v, Tensor) and v.shape[-2:] == size and v.ndim == 4 else v
        for k, v in inputs.items()
    }


def spots(x: Tensor) -> Iterator[tuple]:
    """Overlapping tiles that cover the latent, as MultiDiffusion's (arXiv:2302.08113)."""
    tops, lefts = map(_starts, x.shape[-2:])
    for top in tops:
        for left in lefts:
            yield ..., slice(top, top + TILE), slice(left, left + TILE)


def _starts(size: int) -> list[int]:
    """Where tiles begin along an axis: every STEP, the last one at the very edge."""
    last = max(size - TILE, 0)
    return [*range(0, last, STEP), last]


def averaged(x: Tensor, tiles: list[Tensor]) -> Tensor:
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    for spot, tile in zip(spots(x), tiles, strict=True):
        total[spot] += tile
        count[spot] += 1
    return total / count


def tile_by_tile(apply_model: Callable, given: dict) -> Tensor:
    x, t = given["input"], given["timestep"]
    tiles = [
        apply_model(x[spot], t, **cropped(given["c"], spot, x.shape[-2:])) for spot in spots(x)
    ]
    return averaged(x, tiles)


def stacked_tiles(apply_model: Callable, given: dict) -> Tensor:
    """All tiles in one batch, every input repeated to fit: s e s e … for each."""
    x, t = given["input"], given["timestep"]
    places = list(spots(x))
    parts = [cropped(given["c"], spot, x.shape[-2:]) for spot in places]
    inputs = {
        k: torch.cat([part[k] for part in parts])
        if isinstance(v, Tensor) and len(v) == len(x)
        else v
        for k, v in given["c"].items()
    }
    tiles = torch.cat([x[spot] for spot in places])
    return averaged(x, list(apply_model(tiles, t.repeat(len(places)), **inputs).chunk(len(places))))


def interleaved_tiles(apply_model: Callable, given: dict) -> Tensor:
    """The tiles of every row beside each other: s s s e e e."""
    x, t = given["input"], given["timestep"]
    places = list(spots(x))
    parts = [cropped(given["c"], spot, x.shape[-2:]) for spot in places]
    inputs = {
        k: torch.stack([part[k] for part in parts], dim=1).flatten(0, 1)
        if isinstance(v, Tensor) and len(v) == len(x)
        else v
        for k, v in given["c"].items()
    }
    tiles = torch.stack([x[spot] for spot in places], dim=1).flatten(0, 1)
    out = apply_model(tiles, t.repeat_interleave(len(places)), **inputs)
    return averaged(x, [out[i :: len(places)] for i in range(len(places))])


def prompts_apart(apply_model: Callable, given: dict) -> Tensor:
    """Several devices, each with a whole prompt; and wrappers that evaluate cond and uncond apart.

    Who is who is told by number, but not by uuid.
    """
    return by_rows(len(given["input"]) // len(given["cond_or_uncond"]))(apply_model, given)


def by_rows(size: int) -> Wrapper:
    """Several devices: each evaluates so many rows of the batch."""

    def chunks(apply_model: Callable, given: dict) -> Tensor:
        x, t, parts = given["input"], given["timestep"], []
        for first in range(0, len(x), size):
            own = slice(first, first + size)
            inputs = rows_of(given["c"], lambda v, own=own: v[own], len(x))
            parts.append(apply_model(x[own], t[own], **inputs))
        return torch.cat(parts)

    return chunks


APART = "reads source and edit in one call"
COMPANIONS = [
    Companion("tiles, one after the other", model=partial(with_wrapper, tile_by_tile)),
    Companion(
        "tiles stacked", model=partial(with_wrapper, stacked_tiles),
        reference="tiles, one after the other",
    ),
    Companion(
        "tiles interleaved", model=partial(with_wrapper, interleaved_tiles),
        reference="tiles, one after the other",
    ),
    Companion("a device for every prompt", model=partial(with_wrapper, prompts_apart)),
    Companion(
        "devices of three rows", model=partial(with_wrapper, by_rows(3)), expected=SENTENCE
    ),
    Companion("a device for every row", model=partial(with_wrapper, by_rows(1)), expected=SENTENCE),
]  # fmt: skip
