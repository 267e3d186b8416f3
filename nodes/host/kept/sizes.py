"""How much memory a kept source takes, known before anything is sampled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....p2p_core.kept import KeptSource
from ....p2p_core.maps import size_at
from ....p2p_core.schedule import Window, layout_window
from ..families.transformer import TransformerFamily, model_family
from ..families.unet import Layer, UNetFamily, layer_widths

GIGABYTE = 1e9
COLUMNS = 77  # of a prompt of ordinary length


@dataclass(frozen=True)
class CallSizes:
    """Bytes of one model call: of its attention, by KeptCall's fields, and of the rest."""

    attention: Mapping[str, int]
    rest: int


def call_sizes(
    family: UNetFamily, widths: Mapping[Layer, int], latent: tuple[int, ...], limit: int, item: int,
    columns: int = COLUMNS,
) -> CallSizes:  # fmt: skip
    """latent: (seeds, C, h, w). limit: of self-attention injection. item: bytes of a value."""
    seeds, size = latent[0], (latent[-2], latent[-1])
    places = {layer: math.prod(size_at(size, level)) for layer, level in family.layers.items()}
    tokens = {layer: count * widths[layer] for layer, count in places.items()}
    cross = sum(tokens[layer] + columns * widths[layer] for layer in tokens)
    injected = sum(count for layer, count in tokens.items() if places[layer] <= limit)
    rest = path_bytes(family, latent, columns)
    attention = {"cross": seeds * cross * item, "tokens": seeds * injected * item}
    return CallSizes(attention, rest)


def path_bytes(family: Any, latent: Sequence[int], columns: int) -> int:
    """Bytes of one model call's latent, (seeds, C, …, h, w), and of where its words look."""
    maps = math.prod(family.map_size((latent[-2], latent[-1]))) * columns
    return 4 * (math.prod(latent) + latent[0] * maps)


def call_sizes_of(
    model: Any, family: Any, latent: Sequence[int], limit: int | None = None, columns: int = COLUMNS
) -> CallSizes:
    """The same for a loaded model, in the precision that it computes in."""
    assert isinstance(family, UNetFamily)
    if limit is None:
        limit = family.self_attention_limit((latent[-2], latent[-1]))
    dtype = model.model.manual_cast_dtype or model.model_dtype()
    return call_sizes(family, layer_widths(model), tuple(latent), limit, dtype.itemsize, columns)


@dataclass(frozen=True)
class Forecast:
    """Of a run with one model call a step.

    path: bytes without attention; attention: bytes that fit into the budget, of ``whole``. kept:
    steps whose attention fits; coupled: steps inside the windows; steps: all.
    """

    path: int
    attention: int
    whole: int
    kept: int
    coupled: int
    steps: int


def unet_windows(source: KeptSource) -> dict[str, Window]:
    """In which steps each kind of a UNet's attention is kept."""
    return {"cross": source.cross_window, "tokens": source.self_window}


def forecast(
    source: KeptSource, windows: Mapping[str, Window], sizes: CallSizes, steps: int
) -> Forecast:
    """What a run of so many steps will take."""
    needs = [
        sum(sizes.attention[name] for name, window in windows.items() if window.holds(step, steps))
        for step in range(steps)
        if any(window.holds(step, steps) for window in windows.values())
    ]
    fitting = [sum(needs[: i + 1]) <= source.budget for i in range(len(needs))]
    kept = sum(fitting) if source.full else 0
    attention = sum(needs[:kept])
    return Forecast(steps * sizes.rest, attention, sum(needs), kept, len(needs), steps)


def forecast_of(source: KeptSource, model: Any, latent: dict, steps: int) -> str:
    """How much a kept source will take, and what it will save."""
    family, shape = model_family(model), latent["samples"].shape
    if isinstance(family, TransformerFamily):
        path = steps * path_bytes(family, shape, COLUMNS)
        return told_of_transformer(source, path, steps)
    sizes = call_sizes_of(model, family, shape)
    return told(source, forecast(source, unet_windows(source), sizes, steps))


def told_of_transformer(source: KeptSource, path: int, steps: int) -> str:
    """The same where attention is found out in the run; path: bytes without it."""
    window = layout_window(source.self_window, steps)
    inside = sum(window.holds(step, steps) for step in range(steps))
    text = f"About {spelled(path)} for {steps} steps"
    if not source.full:
        return f"{text}. An edit then evaluates its source in {inside} of them (mode auto)."
    return (
        f"{text}, and what edits look at in {inside} of them (mode auto): the run says how much "
        f"that is before it is kept. Within the budget of {spelled(source.budget)}, an edit then "
        "evaluates no source."
    )


def told(source: KeptSource, found: Forecast) -> str:
    """The sentences for it; rows are those of one edit, cond and uncond."""
    size, after = found.path + found.attention, found.steps - found.coupled
    parts = [(2, found.kept), (3, found.coupled - found.kept), (2, after)]
    rows = ", ".join(f"{count} rows in {steps} steps" for count, steps in parts if steps)
    if found.kept == found.coupled:
        rows = "2 rows in every step"
    text = f"{spelled(size)} for {found.steps} steps. An edit then evaluates {rows}."
    if source.full and found.kept < found.coupled:
        whole = spelled(found.path + found.whole)
        text += f" The budget of {spelled(source.budget)} ends there; all would take {whole}."
    return text


def spelled(size: int) -> str:
    """Bytes for people."""
    return f"{size / GIGABYTE:.3g} GB" if size >= GIGABYTE / 10 else f"{size / 1e6:.3g} MB"
