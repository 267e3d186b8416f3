"""LocalBlendMask: confine an edit to its words' region. arXiv:2208.01626, section 3.2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..p2p_core.local_blend import LocalBlend, WordRegion
from .edit_words import columns_of_all, edit_output, share_input, shown
from .host.edits import Edit
from .host.wires import lacking, wired
from .sockets import EditSocket

THRESHOLD, START_BLEND = 0.3, 0.2  # of the paper's code
NEEDS_EDIT = "Wire a P2P Word Swap, Refine or Reweight to it, or bypass this node too."


class LocalBlendMask(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PLocalBlendMask",
            display_name="P2P Local Blend Mask",
            category="p2p/edit",
            description="Confines an edit to where its words look: outside, the picture stays the "
            "source's, bit for bit. (Prompt-to-Prompt, arXiv:2208.01626, local editing)",
            search_aliases=["local edit", "keep background", "local blend"],
            inputs=[
                EditSocket.Input("edit", optional=True, tooltip="The edit to confine."),
                _words_input(
                    "source_words",
                    "Words of the source prompt that mark the region, separated by commas.",
                ),
                _words_input(
                    "target_words",
                    "Words of the target prompt that mark the region, separated by commas. The "
                    "region is the union of both.",
                ),
                _words_input(
                    "subtract_words",
                    "Optional: words of either prompt whose own region is taken out again.",
                ),
                share_input(
                    "threshold",
                    THRESHOLD,
                    "Attention, as a share of its strongest value, from which a place counts as "
                    "inside (paper: 0.3). Lower makes the region larger.",
                ),
                share_input(
                    "start_blend",
                    START_BLEND,
                    "Share of the steps before the first blend, while the layout forms "
                    "(paper: 0.2).",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Optional region by hand, resized to the picture: alone if no words "
                    "are given, else intersected with the words' region.",
                ),
            ],
            outputs=[edit_output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, input_types: Mapping[str, str] | None = None) -> bool:
        if "edit" not in wired(cls, input_types):
            raise lacking(cls, "edit", NEEDS_EDIT)
        return True

    @classmethod
    def execute(
        cls,
        edit: Edit | None = None,
        source_words: str = "",
        target_words: str = "",
        subtract_words: str = "",
        threshold: float = THRESHOLD,
        start_blend: float = START_BLEND,
        mask: Any = None,
    ) -> io.NodeOutput:
        if edit is None:
            raise lacking(cls, "edit", NEEDS_EDIT)
        prompts = edit.prompt_edit
        if edit.plain:
            raise ValueError(
                "A plain prompt has no edit to confine. Wire a P2P Word Swap, Refine or Reweight."
            )
        if prompts.blend is not None:
            raise ValueError("This edit has a local blend already. Put all words into one node.")
        [source] = columns_of_all(edit.clip, [prompts.source], source_words)
        [target] = columns_of_all(edit.clip, [prompts.target], target_words)
        both = [prompts.source, prompts.target]
        words = WordRegion(source, target)
        blend = LocalBlend(
            words,
            WordRegion(*columns_of_all(edit.clip, both, subtract_words)),
            _checked_share(threshold, "threshold"),
            _checked_share(start_blend, "start_blend"),
            _checked_mask(mask, words),
        )
        return shown(cls, replace(edit, prompt_edit=replace(prompts, blend=blend)))


def _words_input(name: str, tooltip: str) -> io.Input:
    return io.String.Input(name, default="", optional=True, tooltip=tooltip)


def _checked_share(value: float, name: str) -> float:
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"{name} must lie in 0…1, got {value}.")
    return value


def _checked_mask(mask: Any, words: WordRegion) -> Any:
    if mask is None:
        if not words:
            raise ValueError(
                "P2P Local Blend Mask got neither words nor a mask. Name the words that mark the "
                "region in source_words or target_words, or wire a mask."
            )
        return None
    mask = mask[None] if mask.ndim == 2 else mask
    mask = mask[:, 0] if mask.ndim == 4 and mask.shape[1] == 1 else mask
    if mask.ndim != 3:
        raise ValueError(
            f"mask must be a batch of masks, (batch, height, width), got the shape "
            f"{tuple(mask.shape)}. Use ImageToMask or a mask node."
        )
    if not (mask >= 0.5).any():
        raise ValueError("The local blend's mask is empty, so the edit could not show anywhere.")
    return mask


NODES = [LocalBlendMask]
