"""How a run under attention control must be wired, and the sentences for when it is not."""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor

from ..families.clip_text import tiled_rows
from ..runs import CONTROL, Conds, entries, marked_entries
from .plan import ControlPlan


def check_conditionings(conds: Conds, plan: ControlPlan) -> list[tuple[str, dict]]:
    """Our conditionings and the names they stand under in the guider.

    Raises ValueError when they are missing, were changed, or stand in the negative.
    """
    found = [
        (name, entry)
        for name, entry in marked_entries(conds, CONTROL, plan.tag)
        if name == "positive" or not _zeroed(entry)
    ]
    if not found:
        raise ValueError(
            "The sampler's positive does not come from the AttentionController that made its "
            "model. Wire the controller's positive output to the sampler, beside its model and "
            "latent outputs."
        )
    if any(name == "negative" for name, _ in found):
        raise ValueError(
            "The AttentionController's positive is wired to the sampler's negative. Wire it to "
            "positive, and an ordinary CLIPTextEncode to negative."
        )
    steered = any("control" in entry for _, entry in entries(conds))
    for _, entry in found:
        _check_shape(entry["cross_attn"], plan)
        if steered and not plan.texts:  # a ControlNet looks at every column of every row
            entry["cross_attn"] = tiled_rows(entry["cross_attn"], plan.lengths)
    return found


def _zeroed(entry: dict) -> bool:
    """Whether it is our positive after a ConditioningZeroOut: the negative of many a model.

    It is no prompt of ours then, and loses its mark.
    """
    if entry["cross_attn"].any():
        return False
    del entry[CONTROL.mark]
    return True


def _check_shape(cross_attn: Tensor, plan: ControlPlan) -> None:
    expected, got = plan.text_shape, tuple(cross_attn.shape[:2])
    if got != expected:
        raise ValueError(
            f"The AttentionController's positive was changed on its way to the sampler: it should "
            f"hold {expected[0]} prompts of {expected[1]} tokens, but holds {got[0]} of {got[1]}. "
            "Do not average or concatenate it with others; change the prompts of the edit instead."
        )


def check_noise(noise: Tensor, group: int) -> None:
    """ValueError unless a run's noise has ``group`` equal rows for every picture."""
    rows = noise.shape[0]
    if rows % group:
        raise ValueError(
            f"The sampler got a latent batch of {rows}, but the edit needs {group} rows for every "
            "picture (the source and its edits). Wire the AttentionController's latent output to "
            "the sampler."
        )
    source = repeat(noise[::group], "seed ... -> (seed group) ...", group=group)
    if not torch.equal(source, noise):
        raise ValueError(
            "Source and edit would start from different noise. Wire the AttentionController's "
            "latent output (it carries the batch_index) to the sampler and to its noise."
        )
