"""Nodes that work something out from all pictures of a batch together.

Beside an edit they would let the edited rows change the source, which is to be the picture that it
is alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

GUIDERS = {"Guider_PerpNeg": "PerpNegGuider"}
GUIDANCE = {"PerpNeg": "PerpNeg"}  # evaluates the model by itself
BY_MEMBER = ("Mahiro", "TemporalScoreRescaling")  # the classes of post-CFG functions
POST_CFG = "sampler_post_cfg_function"


def check_batch_wide(guider: Any, caches: bool) -> None:
    """ValueError for a node that cannot be given source and edits by themselves.

    caches: whether those that leave steps out are allowed.
    """
    options = guider.model_options
    cache = options.get("transformer_options", {}).get("easycache")
    if any(_rescales(function) for function in options.get(POST_CFG, ())):
        raise ValueError(
            "SkipLayerGuidanceDiT with a rescaling_scale works out one contrast for all pictures "
            "of a batch together, so the source would not be the picture that it is without the "
            "edit. Set its rescaling_scale to 0."
        )
    named = GUIDERS.get(type(guider).__name__) or GUIDANCE.get(
        _owner(options.get("sampler_cfg_function"))
    )
    if cache is not None and not caches:
        _refuse(getattr(cache, "name", "EasyCache"), "which steps to leave out")
    if named:
        _refuse(named, "how strong the negative prompt is")


def _refuse(node: str, what: str) -> None:
    raise ValueError(
        f"{node} works out {what} from all pictures of a batch together, so the source would not "
        f"be the picture that it is without the edit. Remove {node} from this model's graph."
    )


def by_member(options: dict, group: int) -> None:
    """Let such functions of a run's own model options see the sources, and each edit, alone."""
    given = options.get(POST_CFG)
    if given and any(_owner(function) in BY_MEMBER for function in given):
        options[POST_CFG] = [
            partial(_each_member, function, group) if _owner(function) in BY_MEMBER else function
            for function in given
        ]


def _each_member(function: Callable[[dict], Tensor], group: int, given: dict) -> Tensor:
    """A post-CFG function of the rows [s, e1 … en] × seeds, once for every member of the group."""
    rows = len(given["denoised"])
    out = [function(_member(given, rows, slice(i, None, group))) for i in range(group)]
    return torch.stack(out, dim=1).flatten(0, 1)


def _member(given: dict, rows: int, own: slice) -> dict:
    return {
        name: value[own]
        if isinstance(value, Tensor) and value.ndim and len(value) == rows
        else value
        for name, value in given.items()
    }


def _rescales(function: Any) -> bool:
    """Whether it is skip layer guidance that is also to keep the contrast."""
    if _owner(function) != "SkipLayerGuidanceDiT":
        return False
    return bool(inspect.getclosurevars(function).nonlocals.get("rescaling_scale", 0))


def _owner(function: Any) -> str:
    """The class of the node that a function comes from."""
    return getattr(function, "__qualname__", "").partition(".")[0]
