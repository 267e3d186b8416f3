"""From edits to what a sampler needs: a controlled model, a positive and a latent of their rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

from einops import repeat
from torch import Tensor

from ....p2p_core.description import short_label
from ....p2p_core.inversion import Inversion
from ....p2p_core.kept import KeptSource
from ....p2p_core.record import Record
from ..blocks import parse_blocks
from ..edits import Edit
from ..families.clip_text import encode_rows
from ..families.texts import find_columns
from ..families.transformer import model_family
from ..families.unet import UNetFamily
from ..inversion.path import check_inversion
from ..runs import CONTROL, marked
from .plan import ControlPlan, check_transformer_plan, check_unet_plan
from .run import ControlRun, with_control
from .texts import encode_each
from .transformer_run import TransformerRun


def control(
    model: Any,
    latent: dict,
    edits: Sequence[Edit],
    self_replace_tokens: int,
    record_maps: bool,
    inversion: Inversion | None = None,
    extras_from: Sequence[list] | None = None,
    text_l: str = "",
    mode: str = "auto",
    blocks: str = "",
    kept: KeptSource | None = None,
) -> tuple[Any, list[list], dict, Record]:
    """The AttentionController's outputs (model, positive, latent, record).

    extras_from: a CONDITIONING, of which everything but the text is given to all rows. text_l: what
    SDXL's CLIP-L reads in all rows instead of the prompts. kept: see ControlPlan. mode, blocks: of
    transformers, see modes.py. Raises ValueError for edits that do not belong together and for
    models that cannot be edited.
    """
    family = model_family(model)
    _check_same_source(edits)
    first = edits[0]
    made = tuple(edit.prompt_edit for edit in edits if not edit.plain)
    prompts = (first.prompt_edit.source, *(edit.target for edit in made))
    labels = ("source", *map(short_label, made))
    scale = model.model.latent_format.spacial_downscale_ratio
    record = Record(prompts, partial(find_columns, first.clip, prompts), labels, scale)
    plan = ControlPlan(
        tag=uuid4().hex,
        edits=made,
        prompts=prompts,
        family=family,
        self_replace_tokens=self_replace_tokens or None,
        record=record if record_maps else None,
        inversion=inversion,
        kept=kept,
        mode=mode,
        blocks=parse_blocks(blocks),
    )
    texts = [prompt.text for prompt in prompts]
    if isinstance(family, UNetFamily):
        kind: type[ControlRun] = ControlRun
        check_unet_plan(plan)
        positive = encode_rows(first.clip, texts, text_l)
        _check_unet_text(model, family, plan, positive[0][0], latent)
    else:
        kind = TransformerRun
        check_transformer_plan(plan, text_l)
        plan = replace(plan, texts=encode_each(first.clip, texts))
        positive = [[plan.texts[0].cross_attn, dict(plan.texts[0].extras)]]
    if extras_from is not None:
        extras = _extras(extras_from)
        positive = [[cross, {**extras, **values}] for cross, values in positive]
    rows = expand_latent(latent, plan.group)
    return with_control(model, plan, kind), marked(positive, CONTROL, plan.tag), rows, record


def _check_unet_text(
    model: Any, family: UNetFamily, plan: ControlPlan, cross_attn: Tensor, latent: dict
) -> None:
    """ValueError for a text of another model, and for an inversion that does not fit."""
    _check_width(family.text_width, cross_attn.shape[-1])
    if plan.inversion is not None:
        source = cross_attn[:1, : plan.lengths[0]]
        check_inversion(plan.inversion, model, plan.prompts[0].text, source, latent)


def _check_same_source(edits: Sequence[Edit]) -> None:
    first = edits[0]
    for number, edit in enumerate(edits[1:], start=2):
        if edit.prompt_edit.source.text.strip() != first.prompt_edit.source.text.strip():
            raise ValueError(
                f"All edits of one AttentionController change the same source, but edit has the "
                f"source prompt {first.prompt_edit.source.text!r} and another edit "
                f"(number {number}) has {edit.prompt_edit.source.text!r}. Use one controller for "
                "each source."
            )
        if edit.clip is not first.clip:
            raise ValueError(
                "The edits of one AttentionController were made with different CLIPs. Wire the "
                "same CLIP output to all of them."
            )


def _extras(conditioning: Sequence[list]) -> dict[str, Any]:
    """What a conditioning carries beside its text: sizes and crops, pictures, hooks."""
    if len(conditioning) != 1:
        raise ValueError(
            f"extras_from must be one conditioning, but is combined from {len(conditioning)}. Wire "
            "a single CLIPTextEncodeSDXL, InpaintModelConditioning or the like to it."
        )
    [[_, values]] = conditioning
    return {name: value for name, value in values.items() if name != "pooled_output"}


def _check_width(expected: int, got: int) -> None:
    if got != expected:
        raise ValueError(
            f"The model reads text of width {expected}, but the edit's CLIP writes width {got}. "
            "Use the CLIP that was loaded with this model."
        )


def expand_latent(latent: dict, group: int) -> dict:
    """The LATENT with every picture repeated ``group`` times, all from the same noise.

    samples: (B, C, …, h, w) -> (B * group, C, …, h, w); batch_index and noise_mask follow.
    """
    samples = latent["samples"]
    still = samples.ndim == 4 or (samples.ndim == 5 and samples.shape[2] == 1)
    if samples.is_nested or not still:
        raise ValueError(
            "Prompt-to-Prompt edits still pictures: expected a latent of shape (batch, channels, "
            f"height, width), got {samples.ndim} dimensions. Use EmptyLatentImage or VAEEncode."
        )
    rows = samples.shape[0]
    index = latent.get("batch_index", range(rows))
    expanded = {
        **latent,
        "samples": repeat(samples, "seed ... -> (seed group) ...", group=group),
        "batch_index": [number for number in index for _ in range(group)],
    }
    mask = latent.get("noise_mask")
    if mask is not None and mask.shape[0] > 1:
        fitting = mask.repeat(math.ceil(rows / mask.shape[0]), *[1] * (mask.ndim - 1))[:rows]
        expanded["noise_mask"] = repeat(fitting, "seed ... -> (seed group) ...", group=group)
    return expanded
