"""How a run with null embeddings must be wired, and what a node says when it is not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from comfy.samplers import KSAMPLER
from torch import Tensor

from ....p2p_core.inversion import Inversion
from ..fingerprint import fingerprint
from ..patches import guidance_patches, network_patches
from ..runs import NULL_TEXT, Conds, entries, marked_entries
from ..sampler.abilities import check_deterministic, check_steps_visible
from .inputs import limits

WIRING = "Wire the negative output of P2P Null-Text Optimize to the sampler, beside its model"


@dataclass(frozen=True, eq=False)
class NullText:
    """The null embeddings of a run, and the run that they are for.

    embeddings: (N, B, T, D), of every step and picture. negative: (1 or B, T, D), the encoding
    that they replace. patches: of the model's network. cfg: the guidance that they were optimised
    under; None where any will do.
    """

    inversion: Inversion
    embeddings: Tensor
    negative: Tensor
    patches: dict
    cfg: float | None


def check_negative(conds: Conds, tag: str, table: NullText) -> None:
    """ValueError if our negative is missing, stands elsewhere, or was changed."""
    found = marked_entries(conds, NULL_TEXT, tag)
    if not found:
        raise ValueError(
            "The sampler's negative does not come from the P2P Null-Text Optimize that made its "
            f"model. {WIRING}."
        )
    if any(name == "positive" for name, _ in found):
        raise ValueError(
            "The negative of P2P Null-Text Optimize is wired to the sampler's positive. Wire it "
            "to negative, and the prompt to positive."
        )
    changed = any(
        not torch.equal(entry["cross_attn"], table.negative) or limits(entry) for _, entry in found
    )
    if changed or len(conds[found[0][0]]) > 1:
        raise ValueError(
            "The negative of P2P Null-Text Optimize was changed on its way to the sampler. "
            f"{WIRING}, without combining, averaging, limiting or steering it; another negative "
            "prompt goes into P2P Null-Text Optimize itself."
        )


def check_whole_picture(denoise_mask: Tensor | None, conds: Conds) -> None:
    """ValueError for a run over a part of the picture."""
    if denoise_mask is not None:
        raise ValueError(
            "Null embeddings cannot be sampled through a noise mask. Remove the mask from the "
            "latent, and give it to P2P Local Blend Mask to confine an edit."
        )
    if any("area" in entry for _, entry in entries(conds)):
        raise ValueError(
            "Null embeddings are those of whole pictures, but a prompt of the sampler is limited "
            "to an area. Remove the area, and confine an edit with P2P Local Blend Mask."
        )


def check_cfg(guider: Any, expected: float) -> None:
    """ValueError for another guidance than the one that was optimised for."""
    got = getattr(guider, "cfg", math.nan)
    if not math.isclose(got, expected, rel_tol=1e-6):
        raise ValueError(
            f"The null embeddings were optimised for cfg {expected:g}, but the sampler runs at cfg "
            f"{got:g}, where they do not lead back to the picture. Give both the same cfg."
        )


def check_unchanged(model: Any, table: NullText) -> None:
    """ValueError for a model that another node changed after the optimisation."""
    changed = guidance_patches(model)
    if network_patches(model) != table.patches:
        changed.append("patches of the network")
    if table.inversion.model is None or not table.inversion.model.same(fingerprint(model)):
        changed.append("weights or LoRAs")
    if changed:
        raise ValueError(
            "The model was changed between P2P Null-Text Optimize and the sampler "
            f"({', '.join(changed)}), so the null embeddings do not lead back to the picture. Put "
            "such nodes before P2P DDIM Invert, and leave out those that change guidance."
        )


def checked_sampler(sampler: Any) -> KSAMPLER:
    """The sampler; ValueError if it adds noise or hides its steps."""
    if not isinstance(sampler, KSAMPLER):
        raise ValueError(
            f"The sampler {type(sampler).__name__} does not run on the host's sampler interface, "
            "so null embeddings cannot follow its steps. Use KSampler or a KSamplerSelect."
        )
    check_deterministic(sampler)
    check_steps_visible(sampler.sampler_function.__name__, "null-text inversion")
    return sampler
