"""Finding out where text and image stand in a transformer's attention, by watching it.

One pass of four rows over a small latent, with zeroed attention (see trace.py): the inputs as they
are; with another latent and one half of the conditioning's columns replaced; with that latent and
the other half; with one part of the latent replaced. A fifth has other reference pictures, if there
are any. The image moves alike in the second and the third row, a column of text in one of them.
That says what stands where, and which column: a random half of the columns is unlike any shifted or
turned copy of itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .inputs import Inputs
from .record import IMAGE, OTHER, PATCHES, REFERENCE, Call, Kind, Layout, runs_of
from .refusals import not_finite, uncertain, unreachable
from .trace import Trace, Watched

MOVED, STILL = 0.03, 0.003  # of a call's mean: surely moved, surely not
EDGES = (4, 16, 64)  # of the latents that are tried, until the image has a few positions


def probe(apply: Callable[..., Tensor], inputs: Inputs, options: dict, family: str) -> Layout:
    """The layout of a model's attention calls, for inputs of one row.

    apply: the model below all wrappers. Raises ValueError for a model whose attention cannot be
    reached or not made out for certain.
    """
    layout = None
    for edge in EDGES:
        try:
            layout = _probed(apply, inputs.sized((edge, edge)), options, family)
        except (ArithmeticError, RuntimeError):  # latents as small as that are no picture to it
            if edge == EDGES[-1]:
                raise
            continue
        if _image_positions(layout) >= 4 or not layout.calls:
            break
    assert layout is not None
    if not layout.reading:
        raise unreachable(family, len(layout.calls))
    return layout


def _image_positions(layout: Layout) -> int:
    sides = [run for call in layout.calls for run in (*call.queries, *call.keys)]
    return max((run.length for run in sides if run.role == IMAGE), default=0)


def _probed(apply: Callable[..., Tensor], inputs: Inputs, options: dict, family: str) -> Layout:
    half = pattern(inputs.text.shape[1])
    calls, corners = [], []
    for index, watched in enumerate(_watch(apply, _trial(inputs, half), options, family)):
        call, corner_moved = _call(index, watched, half, inputs.x, family)
        calls.append(call)
        corners.append(corner_moved)
    raster = all(_is_raster(call, moved) for call, moved in zip(calls, corners, strict=True))
    return Layout(tuple(calls), inputs.text.shape[1], inputs.size, raster)


def _trial(inputs: Inputs, half: Tensor) -> Inputs:
    """Rows: plain, first half and latent, second half and latent, part of it, references."""
    generator = torch.Generator().manual_seed(1)
    x, text, edge = inputs.x, inputs.text, inputs.size[0] // 2
    latent, corner = replaced_latent(x, generator), x.clone()
    corner[..., :edge, edge:] = latent[..., :edge, edge:]
    first, second = (replaced_text(text, columns, generator) for columns in (half, ~half))
    more = 1 if inputs.references else 0
    rows = inputs.rows([0] * (4 + more))
    texts, latents = [text, first, second, text], [x, latent, latent, corner]
    rows = replace(
        rows, text=torch.cat([*texts, *[text] * more]), x=torch.cat([*latents, *[x] * more])
    )
    if not more:
        return rows
    references = [
        torch.cat([*[one] * 4, replaced_latent(one, generator)]) for one in inputs.references
    ]
    return rows.with_references(references)


def _watch(
    apply: Callable[..., Tensor], trial: Inputs, options: dict, family: str
) -> list[Watched | None]:
    trace = Trace(len(trial.x))
    try:
        trial.run(apply, options, trace, trace.blocks)
    except TypeError:  # ComfyUI's way to replace blocks is broken in some families: nobody does it
        trace = Trace(len(trial.x))
        trial.run(apply, options, trace)
    calls = [
        call and call._replace(queries=call.queries.cpu(), keys=call.keys.cpu())
        for call in trace.calls
    ]
    for index, call in enumerate(calls):
        if call is not None and not all(bool(x.isfinite().all()) for x in call[:2]):
            raise not_finite(family, f"attention call {index}")
    return calls


def _call(
    index: int, watched: Watched | None, half: Tensor, x: Tensor, family: str
) -> tuple[Call, Tensor]:
    """What one call is, and which image keys or queries moved with the latent's top right part."""
    corner = torch.empty(0, dtype=torch.bool)
    if watched is None:
        return Call(index, Kind.OTHER), corner
    sides = []
    for name, rows in ("a query", watched.queries), ("a key", watched.keys):
        moved = Moved.between(rows, partial(_moved, family=family, call=index, name=name))
        sides.append(_roles(moved, half, family, index))
        if moved.image.any():
            corner = moved.part[moved.image]
    queries, keys = (runs_of(roles) for roles in sides)
    kind = _kind(*(set(roles) for roles in sides))
    images = [roles.count(IMAGE) for roles in sides if IMAGE in roles]
    patch = _patch(max(images, default=0), x)
    return Call(index, kind, queries, keys, patch, watched.block, watched.widths), corner


def _moved(base: Tensor, other: Tensor, family: str, call: int, name: str) -> Tensor:
    """Which positions changed, (L,) bool; refuses what is neither still nor surely moved."""
    change = (other - base).norm(dim=-1) / base.norm(dim=-1).mean().clamp(min=1e-12)
    unclear = (change > STILL) & (change < MOVED)
    if unclear.any():
        place = int(unclear.nonzero()[0])
        raise uncertain(
            family, call, f"{name} (position {place}) moved by only {float(change[place]):.1e}"
        )
    return change >= MOVED


class Moved(NamedTuple):
    """Which positions moved with what, (L,) bool each.

    first, second: with a half of the text, or the latent; apart: not alike in these two. part: with
    a part of the latent. reference: with the reference pictures.
    """

    first: Tensor
    second: Tensor
    apart: Tensor
    part: Tensor
    reference: Tensor

    @classmethod
    def between(cls, rows: Tensor, moved: Callable[[Tensor, Tensor], Tensor]) -> Moved:
        """From the rows of a trial."""
        base, first, second, part, *reference = rows
        return cls(
            moved(base, first), moved(base, second), moved(first, second), moved(base, part),
            moved(base, reference[0] if reference else base),
        )  # fmt: skip

    @property
    def image(self) -> Tensor:
        return self.first & self.second & ~self.apart

    @property
    def text(self) -> Tensor:
        return self.first ^ self.second


def _roles(moved: Moved, half: Tensor, family: str, call: int) -> list[int]:
    """The role of every position, from what moved with which half of the text or picture."""
    text, image = moved.text, moved.image
    if (moved.first & moved.second & moved.apart).any():
        seen = "a position moved with both halves of the prompt, or with the prompt and the picture"
        raise uncertain(family, call, seen)
    if (moved.part & ~image).any():
        raise uncertain(family, call, "a position moved with a part of the picture alone")
    if (moved.reference & (text | image)).any():
        raise uncertain(family, call, "a position moved with a reference and with something else")
    roles = [
        IMAGE if moved else REFERENCE if of_reference else OTHER
        for moved, of_reference in zip(image.tolist(), moved.reference.tolist(), strict=True)
    ]
    places = text.nonzero()[:, 0].tolist()
    for place, column in zip(places, _columns(moved.first[text], half, family, call), strict=True):
        roles[place] = column
    if places and places[-1] - places[0] != len(places) - 1:
        raise uncertain(family, call, "the prompt's columns do not stand together")
    return roles


def _columns(found: Tensor, half: Tensor, family: str, call: int) -> range:
    """Which neighbouring columns show this pattern of the first half."""
    fits = [
        start
        for start in range(len(half) - len(found) + 1)
        if torch.equal(half[start : start + len(found)], found)
    ]
    if len(found) and len(fits) != 1:
        raise uncertain(family, call, "the prompt's columns do not stand in their order")
    return range(fits[0], fits[0] + len(found)) if len(found) else range(0)


def _kind(queries: set[int], keys: set[int]) -> Kind:
    if IMAGE not in queries:
        return Kind.OTHER
    text = any(role >= 0 for role in keys)
    if text:
        return Kind.JOINT if IMAGE in keys else Kind.CROSS
    return Kind.SELF if IMAGE in keys else Kind.OTHER


def _patch(images: int, x: Tensor) -> int:
    """How many latent rows make one row of positions: 0 if the image has none or it is no grid."""
    frames = x.shape[2] if x.ndim == 5 else 1
    for patch in PATCHES:
        positions = -((-x.shape[-1] // patch) ** 2)
        if images and images % positions == 0 and images // positions <= frames:
            return patch
    return 0


def _is_raster(call: Call, corner: Tensor) -> bool:
    """Whether exactly the positions of the top right quarter moved, counted row by row."""
    if not len(corner):
        return True
    edge = int(len(corner) ** 0.5)
    expected = torch.zeros(edge, edge, dtype=torch.bool)
    expected[: edge // 2, edge // 2 :] = True
    return edge * edge == len(corner) and torch.equal(corner, expected.flatten())


def pattern(columns: int) -> Tensor:
    """A random half of the columns, (T,) bool, unlike its own shifts and its reverse."""
    generator = torch.Generator().manual_seed(0)
    half = torch.zeros(columns, dtype=torch.bool)
    for _ in range(100):
        half = torch.zeros(columns, dtype=torch.bool)
        half[torch.randperm(columns, generator=generator)[: (columns + 1) // 2]] = True
        turned = [half.roll(shift) for shift in range(1, columns)] + [half.flip(0)]
        if columns < 3 or not any(torch.equal(half, other) for other in turned):
            return half
    return half


def replaced_text(text: Tensor, columns: Tensor, generator: torch.Generator) -> Tensor:
    """The text, (1, T, C), with other values in some columns.

    Their sum stays, since some networks hand the text's mean to every column.
    """
    chosen = columns.nonzero()[:, 0].to(text.device)
    old = text[:, chosen].float()
    spread = text.float().std()
    noise = torch.randn(old.shape, generator=generator).to(old.device)
    new = noise * torch.where(spread > 0, spread, torch.ones_like(spread))
    if len(chosen) > 1:
        new = new - new.mean(dim=1, keepdim=True) + old.mean(dim=1, keepdim=True)
    return text.index_copy(1, chosen, new.to(text.dtype))


def replaced_latent(x: Tensor, generator: torch.Generator) -> Tensor:
    """Other noise of the latent's strength."""
    noise = torch.randn(x.shape, generator=generator).to(x)
    spread: Any = x.float().std()
    return noise * torch.where(spread > 0, spread, torch.ones_like(spread)).to(x)
