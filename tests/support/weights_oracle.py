"""Word weights written down plainly: every attention map in full, its columns scaled one by one.

Shares no code with the pack. A weight w of column j multiplies the map's column (`values`), or
adds log w to its logits (`scores`); a negative one turns the column's value about the mean of the
words of weight 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor


def explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Mapping[int, float],
    words: Iterable[int],
    scores: bool,
) -> Tensor:
    """(H, Q, D) from q, k, v (H, L, D); weights and words by key position."""
    logits = q @ k.mT / math.sqrt(q.shape[-1])
    for place, weight in weights.items():
        if scores and weight > 0:
            logits[..., place] += math.log(weight)
    maps = logits.softmax(-1)
    out = maps @ v
    kept = [place for place in words if place not in weights]
    mean = v[:, kept].mean(1) if kept else torch.zeros_like(v[:, 0])
    for place, weight in weights.items():
        column, value = maps[..., place, None], v[:, place, None]
        if weight < 0:
            out = out + column * ((1 - weight) * (mean[:, None] - value))
        elif not scores or weight == 0:
            out = out + column * (weight - 1) * value
    return out


def unet(
    model: ModelPatcher, weights: Mapping[int, float], words: Sequence[int], scores: bool = False,
    active: Callable[[dict], bool] = lambda extra: True, columns: int = 77,
) -> ModelPatcher:  # fmt: skip
    """The model with the weights in the cond rows of every cross-attention.

    columns: of the prompt, which the host repeats beside a longer one.
    """

    def attn2(q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
        heads = extra["n_heads"]
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        chunks = extra["cond_or_uncond"]
        size = len(q) // len(chunks)
        starts = range(0, k.shape[2] - columns + 1, columns)
        tiled = {start + place: w for start in starts for place, w in weights.items()}
        places = [start + place for start in starts for place in words]
        rows = []
        for row in range(len(q)):
            ours = chunks[row // size] == 0 and active(extra)
            rows.append(
                explicit(q[row], k[row], v[row], tiled if ours else {}, places, scores and ours)
            )
        return torch.stack(rows).transpose(1, 2).flatten(2)

    model = model.clone()
    for place in ("input", "middle", "output"):
        for number in range(12):
            model.set_model_attn2_replace(attn2, place, number)
    return model


def joint(
    model: ModelPatcher, weights: Mapping[int, float], words: Sequence[int], text: int,
    image: Callable[[dict], int], image_first: bool = False, scores: bool = False,
    image_only: bool = False,
) -> ModelPatcher:  # fmt: skip
    """The model with the weights in the cond rows of every call whose keys hold text and image.

    text: columns of the prompt; image(options): image positions. A call of exactly ``text`` keys
    and ``image`` queries is cross-attention.
    """

    def attention(func: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kw: Any) -> Tensor:
        names = ("heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape")
        given = {**dict(zip(names, args, strict=False)), **kw}
        options, heads = given["transformer_options"], given["heads"]
        by_head = bool(given.get("skip_reshape"))
        q, k, v = (_by_head(x, heads, by_head) for x in (q, k, v))
        pictures, queries, keys = image(options), q.shape[2], k.shape[2]
        cross = queries == pictures and keys == text
        mask = given.get("mask")
        assert mask is None or not (mask.dtype.is_floating_point and (mask != 0).any())
        first = pictures if image_first else 0
        here = cross or (keys >= pictures + text and queries == keys)
        rows = []
        for row in range(len(q)):
            chunks = options["cond_or_uncond"]
            ours = (
                here and chunks[row // (len(q) // len(chunks))] == 0 and len(q) <= len(chunks) * 8
            )
            own = {first + place: weight for place, weight in weights.items()} if ours else {}
            places = [first + place for place in words]
            out = explicit(q[row], k[row], v[row], own, places, scores and ours)
            if ours and image_only and not cross:
                plain = explicit(q[row], k[row], v[row], {}, places, False)
                seen = torch.zeros(queries, dtype=torch.bool)
                start = 0 if image_first else queries - pictures
                seen[start : start + pictures] = True
                out = torch.where(seen[:, None], out, plain)
            rows.append(out)
        out = torch.stack(rows)
        return out if given.get("skip_output_reshape") else out.transpose(1, 2).flatten(2)

    model = model.clone()
    options = model.model_options["transformer_options"]
    options["optimized_attention_override"] = attention
    return model


def _by_head(x: Tensor, heads: int, by_head: bool) -> Tensor:
    """(B, H, L, D) from any of the host's layouts."""
    if x.ndim == 4:
        return x if by_head else x.transpose(1, 2)
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
