"""PlainPrompt: a prompt without any edit, to see where its words look."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from .edit_words import check_texts, edit_output, identity_edit, shown
from .first_prompts import SOURCE


class PlainPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PPlainPrompt",
            display_name="P2P Plain Prompt",
            category="p2p/edit",
            description="A prompt that is not edited: through a P2P Attention Controller the "
            "picture stays what it would be, and P2P Attention Maps shows where its words look.",
            search_aliases=["heat map", "daam", "attention of a prompt"],
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP of the checkpoint that will be sampled."),
                io.String.Input(
                    "prompt", multiline=True, default=SOURCE, tooltip="The prompt of the picture."
                ),
            ],
            outputs=[edit_output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool:
        return check_texts({"prompt": prompt})

    @classmethod
    def execute(cls, clip: Any, prompt: str) -> io.NodeOutput:
        return shown(cls, replace(identity_edit(clip, prompt), plain=True))


NODES = [PlainPrompt]
