"""Word swap: other words in the same picture. arXiv:2208.01626, section 3.2."""

from __future__ import annotations

from comfy_api.latest import io

from ..p2p_core.alignment import align_replace
from .edit_words import TwoPrompts, edit_inputs, edit_output
from .first_prompts import SWAPPED


class WordSwap(TwoPrompts):
    align = staticmethod(align_replace)

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PWordSwap",
            display_name="P2P Word Swap",
            category="p2p/edit",
            description="Replaces words of a prompt while the picture keeps its layout: the new "
            "words look where the old ones did. Wire the edit to a P2P Attention Controller. "
            "(Prompt-to-Prompt, arXiv:2208.01626)",
            search_aliases=[
                "prompt to prompt",
                "prompt2prompt",
                "swap word",
                "change word",
                "replace word",
                "edit prompt",
                "attention replace",
            ],
            inputs=edit_inputs(SWAPPED),
            outputs=[edit_output()],
            hidden=[io.Hidden.unique_id],
        )


NODES = [WordSwap]
