"""Local blends during a sampling run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from ....p2p_core.edits import PromptEdit
from ....p2p_core.local_blend import RegionReader, blend
from ....p2p_core.maps import MapStore


class Blending:
    """Sets the edited rows of a run to their source outside their masks, after every step.

    masks: for every blended step, the masks of all edited rows, (groups * edits, h, w) bool.
    """

    def __init__(self, edits: Sequence[PromptEdit], store: MapStore, steps: int) -> None:
        self.edits = edits
        self.store = store
        self.steps = steps
        self.masks: dict[int, Tensor] = {}

    def check_regions(self, groups: int) -> None:
        """ValueError if a mask by hand has neither one picture nor one for every seed."""
        for edit in self.edits:
            region = edit.blend.region if edit.blend else None
            if region is not None and len(region) not in (1, groups):
                raise ValueError(
                    f"The local blend's mask is a batch of {len(region)}, but there are {groups} "
                    "pictures. Give one mask for all, or one for each."
                )

    def on_step(self, step: int, x: Tensor) -> None:
        """Blend the latent x, (rows, C, h, w), in place, as step - 1 left it."""
        done = step - 1
        if done < 0 or not any(e.blend and e.blend.active(done, self.steps) for e in self.edits):
            return
        group = 1 + len(self.edits)
        source = range(0, len(x), group)
        whole = torch.ones(len(source), *x.shape[-2:], dtype=torch.bool, device=x.device)
        masks = [whole] * len(self.edits)
        for number, edit in enumerate(self.edits):
            if edit.blend is None or not edit.blend.active(done, self.steps):
                continue
            edited = range(number + 1, len(x), group)
            reader = RegionReader(self.store, source, edited, (x.shape[-2], x.shape[-1]))
            mask = reader.mask(edit.blend).to(x.device)
            x[number + 1 :: group] = blend(x[number + 1 :: group], x[::group], mask)
            masks[number] = mask
        self.masks[done] = rearrange(masks, "edit seed h w -> (seed edit) h w")
