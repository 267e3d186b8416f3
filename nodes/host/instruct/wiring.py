"""How an InstructPix2Pix run must be wired, and what a node says when it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..runs import INSTRUCT, Conds

# Which output belongs where in a guider. DualCFGGuider calls its cond1 positive, its cond2 middle.
CFG = {"positive": "positive", "negative": "negative"}
DUAL_CFG = {"positive": "positive", "middle": "negative", "negative": "uncond"}
DUAL_CFG_INPUTS = {"positive": "cond1", "middle": "cond2", "negative": "negative"}


@dataclass(frozen=True)
class InstructPlan:
    """What a run is to carry out.

    tag: marks the conditionings it belongs to. image_cfg: s_I. encoded: shape of the encoded
    pictures, (B, C, h, w). prompts: rows of the text encodings, 1 or those of the latent.
    """

    tag: str
    image_cfg: float
    encoded: tuple[int, ...]
    prompts: int


def guides_by_itself(conds: Conds) -> bool:
    """Whether the guider is a DualCFGGuider, which carries out eq. 3 on any model."""
    return set(conds) == set(DUAL_CFG)


def takes_part(guider: Any, plan: InstructPlan) -> bool:
    """Whether the run needs a third evaluation; ValueError for wrong wires and unfit guiders."""
    names = set(guider.conds)
    if guides_by_itself(guider.conds):
        _check_dual_cfg(guider.conds, plan)
        return False  # it carries out eq. 3 itself
    if names <= set(CFG):
        _check_cfg(guider.conds, plan)
    if names != set(CFG) and plan.image_cfg != 1.0:
        raise not_reached(guider)
    return plan.image_cfg != 1.0


def _check_cfg(conds: Conds, plan: InstructPlan) -> None:
    for place, role in CFG.items():
        for entry in conds.get(place, ()):
            tag, found = entry.get(INSTRUCT.mark, (None, None))
            if tag != plan.tag:
                origin = "another" if tag else "no"
                raise ValueError(
                    f"The sampler's {place}, or a part of it, comes from {origin} "
                    f"IP2PConditioning, so it lacks this model's picture. Wire the {role} output "
                    "of the IP2PConditioning that made the model, and combine or change prompts "
                    "before that node."
                )
            if found != role:
                raise ValueError(
                    f"IP2PConditioning's {found} is wired to the sampler's {place}. Wire its "
                    f"{role} output there; uncond is for a DualCFGGuider only."
                )


def _check_dual_cfg(conds: Conds, plan: InstructPlan) -> None:
    for place, role in DUAL_CFG.items():
        for entry in conds[place]:
            tag, found = entry.get(INSTRUCT.mark, (None, None))
            if tag == plan.tag and found != role:
                raise ValueError(
                    f"IP2PConditioning's {found} is wired to the {DUAL_CFG_INPUTS[place]} of "
                    "DualCFGGuider. Wire positive to cond1, negative to cond2 and uncond to "
                    "negative."
                )


def check_latent(noise: Tensor, plan: InstructPlan) -> None:
    """ValueError if a run's latent has another size than the pictures, or unfit rows."""
    pictures, _, height, width = plan.encoded
    rows = len(noise)
    if noise.ndim != 4 or tuple(noise.shape[-2:]) != (height, width):
        size = "x".join(str(8 * side) for side in reversed(noise.shape[2:]))
        raise ValueError(
            f"The sampler's latent is {size} pixels, but the picture to edit was encoded at "
            f"{8 * width}x{8 * height}. Wire IP2PConditioning's latent output; for another size "
            "scale the image before that node."
        )
    if (pictures > 1 and rows != pictures) or rows % plan.prompts:
        raise ValueError(
            f"The sampler's latent holds {rows} rows, but IP2PConditioning got {pictures} "
            f"picture(s) and {plan.prompts} prompt(s). Wire its latent output, and repeat or pick "
            "pictures before that node (RepeatImageBatch, ImageFromBatch)."
        )


def not_reached(guider: Any) -> ValueError:
    """The error of a guider or a patch that would ignore image_cfg."""
    return ValueError(
        f"image_cfg cannot act here: the guider {type(guider).__name__}, or a patch of the model, "
        "combines the predictions in its own way. Use KSampler or CFGGuider with positive and "
        "negative, or DualCFGGuider with uncond as well; or set image_cfg to 1."
    )
