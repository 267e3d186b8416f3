"""Refine: more words for the same picture. arXiv:2208.01626, section 3.2."""

from __future__ import annotations

from comfy_api.latest import io

from ..p2p_core.alignment import align_refine
from .edit_words import TwoPrompts, edit_inputs, edit_output
from .first_prompts import REFINED


class Refine(TwoPrompts):
    align = staticmethod(align_refine)

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
            search_aliases=[
                "add word",
                "style",
                "attention refine",
            ],
            inputs=edit_inputs(REFINED),
            outputs=[edit_output()],
            hidden=[io.Hidden.unique_id],
        )


NODES = [Refine]
