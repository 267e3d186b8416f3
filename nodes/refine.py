"""Refine: more words for the same picture. arXiv:2208.01626, section 3.2."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..p2p_core.alignment import align_refine
from .edit_words import (
    CROSS_REPLACE_STEPS,
    SELF_REPLACE_STEPS,
    check_texts,
    edit_inputs,
    edit_output,
    make_edit,
    shown,
)


class Refine(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PRefine",
            display_name="P2P Refine",
            category="p2p/edit",
            description="Adds words to a prompt (an adjective, a style, a detail) while the "
            "picture keeps its layout: words that both prompts share keep the source's attention, "
            "new ones find their own place. Wire the edit to a P2P Attention Controller. "
            "(Prompt-to-Prompt, arXiv:2208.01626)",
            search_aliases=["prompt to prompt", "add word", "style", "attention refine"],
            inputs=edit_inputs(),
            outputs=[edit_output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        source_prompt: str | None = None,
        target_prompt: str | None = None,
        word_windows: str | None = None,
    ) -> bool | str:
        prompts = {"source_prompt": source_prompt, "target_prompt": target_prompt}
        return check_texts(prompts, word_windows)

    @classmethod
    def execute(
        cls,
        clip: Any,
        source_prompt: str,
        target_prompt: str,
        cross_replace_steps: float = CROSS_REPLACE_STEPS,
        self_replace_steps: float = SELF_REPLACE_STEPS,
        word_windows: str = "",
    ) -> io.NodeOutput:
        steps = cross_replace_steps, self_replace_steps
        edit = make_edit(clip, source_prompt, target_prompt, align_refine, *steps, word_windows)
        return shown(cls, edit)


NODES = [Refine]
