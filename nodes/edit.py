"""Edit: one node from two prompts to a sampler. arXiv:2208.01626."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..p2p_core.alignment import align_replace
from ..p2p_core.inversion import Inversion
from ..p2p_core.kept import KeptSource
from ..p2p_core.local_blend import LocalBlend, WordRegion
from .attention_controller import (
    controller_outputs,
    enabled_input,
    inversion_input,
    kept_source_input,
    maps_are_read,
    passed_positive,
)
from .edit_words import (
    CROSS_REPLACE_STEPS,
    SELF_REPLACE_STEPS,
    check_texts,
    columns_of_all,
    make_edit,
    shown,
    source_text,
)
from .first_prompts import SOURCE, SWAPPED
from .host.control.wiring import control
from .host.edits import Edit as PreparedEdit
from .host.instruct.conditioning import doubts
from .host.wires import wired
from .local_blend_mask import START_BLEND, THRESHOLD

SELF_SHARE = SELF_REPLACE_STEPS / CROSS_REPLACE_STEPS


class Edit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PEdit",
            display_name="P2P Edit",
            category="p2p",
            description="The node to begin with: change words of a prompt and keep the picture. "
            "Words that differ are swapped, new ones added; wire model, positive and latent to any "
            "sampler, which then makes the source and the edited picture. Stands for P2P Word "
            "Swap, P2P Refine, P2P Local Blend Mask and P2P Attention Controller. "
            "(Prompt-to-Prompt, arXiv:2208.01626)",
            search_aliases=[
                "prompt to prompt",
                "prompt-to-prompt",
                "prompt to prompt editing",
                "prompt2prompt",
                "p2p",
                "change word",
                "swap word",
                "semantic edit",
                "edit picture by words",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint's model, also with LoRAs."),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                io.Latent.Input(
                    "latent",
                    tooltip="Size and number of pictures; for a photograph the latent output of "
                    "its inversion.",
                ),
                io.String.Input(
                    "source_prompt",
                    multiline=True,
                    default=SOURCE,
                    tooltip="The prompt of the source picture; of a photograph, what it shows.",
                ),
                io.String.Input(
                    "target_prompt",
                    multiline=True,
                    default=SWAPPED,
                    tooltip="The same prompt with other or more words.",
                ),
                io.Float.Input(
                    "strength",
                    default=CROSS_REPLACE_STEPS,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=False,
                    optional=True,
                    tooltip="How strongly the source's layout is held: 1 keeps most, 0 leaves only "
                    "the common noise. It is cross_replace_steps of P2P Word Swap, and twice its "
                    "self_replace_steps; lower it when a new word should change a shape.",
                ),
                io.String.Input(
                    "blend_words",
                    default="",
                    optional=True,
                    tooltip="Optional: words of either prompt, separated by commas. Outside the "
                    "region where they look the picture stays the source's, bit for bit.",
                ),
                inversion_input(),
                passed_positive(),
                enabled_input(),
                kept_source_input(),
            ],
            outputs=controller_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        source_prompt: str | None = None,
        target_prompt: str | None = None,
        input_types: Mapping[str, str] | None = None,
    ) -> bool:
        source = None if "inversion" in wired(cls, input_types) else source_prompt
        return check_texts({"source_prompt": source, "target_prompt": target_prompt})

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> bool:
        return maps_are_read(cls)

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        latent: dict,
        source_prompt: str,
        target_prompt: str,
        strength: float = CROSS_REPLACE_STEPS,
        blend_words: str = "",
        inversion: Inversion | None = None,
        positive: list | None = None,
        enabled: bool = True,
        kept_source: KeptSource | None = None,
    ) -> io.NodeOutput:
        if not (math.isfinite(strength) and 0 <= strength <= 1):
            raise ValueError(f"strength must lie in 0…1, got {strength:g}.")
        steps = strength, strength * SELF_SHARE
        source = source_text(source_prompt, None, inversion)
        edit = make_edit(clip, source, target_prompt, align_replace, *steps, word_windows="")
        edit = replace(_blended(edit, blend_words), plain=not enabled)
        told = shown(cls, edit, doubts(model, None))
        records = maps_are_read(cls)
        made = control(model, latent, [edit], 0, records, inversion=inversion, kept=kept_source)
        return io.NodeOutput(*made, ui=told.ui)


def _blended(edit: PreparedEdit, blend_words: str) -> PreparedEdit:
    """The edit, confined to the region of these words if there are any."""
    prompts = edit.prompt_edit
    words = WordRegion(*columns_of_all(edit.clip, [prompts.source, prompts.target], blend_words))
    if not words:
        return edit
    blend = LocalBlend(words, WordRegion((), ()), THRESHOLD, START_BLEND)
    return replace(edit, prompt_edit=replace(prompts, blend=blend))


NODES = [Edit]
