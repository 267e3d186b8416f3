"""Reweight: more or less of a word. arXiv:2208.01626, section 3.2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from .edit_words import (
    CROSS_REPLACE_STEPS,
    SELF_REPLACE_STEPS,
    columns_of_all,
    edit_output,
    identity_edit,
    shown,
)
from .first_prompts import PLACE
from .host.edits import Edit
from .sockets import EditSocket

AS_IT_IS = (
    "A scale of 1 leaves the words as they are. Raise it for more of them, lower it for less."
)


class Reweight(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PReweight",
            display_name="P2P Reweight",
            category="p2p/edit",
            description="Makes words of a prompt stronger, weaker or negative in the same picture. "
            "Wire an edit to scale words of its target prompt, or a CLIP and a prompt to scale "
            "words of that prompt. (Prompt-to-Prompt, arXiv:2208.01626)",
            search_aliases=[
                "prompt weight",
                "word strength",
                "equalizer",
                "attention weight",
            ],
            inputs=[
                io.String.Input(
                    "words",
                    default=PLACE,
                    tooltip="Words or phrases of the target prompt, separated by commas or lines. "
                    "Every occurrence is scaled.",
                ),
                io.Float.Input(
                    "scale",
                    default=2.0,
                    min=-10.0,
                    max=10.0,
                    step=0.1,
                    round=False,
                    tooltip="Factor on the words' attention (the paper uses -2 to 2): 1 leaves it, "
                    "0 removes it, negative pushes away. Several Reweights on a word multiply.",
                ),
                EditSocket.Input(
                    "edit", optional=True, tooltip="An edit whose target words are scaled."
                ),
                io.Clip.Input(
                    "clip", optional=True, tooltip="Without an edit: the checkpoint's CLIP."
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Without an edit: the prompt whose words are scaled, with the usual "
                    f"windows (cross {CROSS_REPLACE_STEPS}, self {SELF_REPLACE_STEPS}). For other "
                    "windows wire a P2P Word Swap with this text as source and target.",
                ),
            ],
            outputs=[edit_output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, words: str, scale: float, edit: Edit | None = None, clip: Any = None, prompt: str = ""
    ) -> io.NodeOutput:
        base = _base_edit(edit, clip, prompt)
        [columns] = columns_of_all(base.clip, [base.prompt_edit.target], words)
        if not columns:
            raise ValueError("words is empty. Name at least one word of the target prompt.")
        scaled = base.prompt_edit.reweighted(columns, scale)
        note = AS_IT_IS if scale == 1 else None
        return shown(cls, replace(base, prompt_edit=scaled, plain=False), note)


def _base_edit(edit: Edit | None, clip: Any, prompt: str) -> Edit:
    """The wired edit, or the identity edit of the prompt; exactly one must be given."""
    if (edit is None) == (clip is None and not prompt.strip()):
        got = "neither" if edit is None else "both"
        raise ValueError(f"P2P Reweight needs an edit, or a clip and a prompt, but got {got}.")
    if edit is not None:
        return edit
    if clip is None:
        raise ValueError("P2P Reweight got a prompt without a clip. Wire the checkpoint's CLIP.")
    return identity_edit(clip, prompt)


NODES = [Reweight]
