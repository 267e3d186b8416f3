"""PromptWeights: words with weights, also negative, on any model whose words can be followed."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..p2p_core.schedule import checked_window
from .attention_controller import passed_positive
from .edit_words import share_input
from .first_prompts import WEIGHTED
from .host.blocks import parse_blocks
from .host.weights.wiring import WeightSettings, prompt_weights

VALUES, SCORES = "values", "scores"
ALL, IMAGE = "all", "image"


class PromptWeights(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PPromptWeights",
            display_name="P2P Prompt Weights",
            category="p2p",
            description="A prompt whose words have weights: (a red hat:1.5) for more, (blurry:-1) "
            "to push away, \\( and \\) for plain brackets. The weights act in the model's "
            "attention, so they work where the text encoder reads (word:1.2) as text (Qwen-Image, "
            "Z-Image, Krea 2, Flux.2 …), at cfg 1 too, in one pass. Wire both outputs to the "
            "sampler. (Prompt-to-Prompt's re-weighting, arXiv:2208.01626)",
            search_aliases=[
                "prompt weight", "word weight", "negative weight", "emphasis", "negpip",
                "negative prompt cfg 1", "token weight", "weighted prompt",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample, with its LoRAs."),
                io.Clip.Input("clip", tooltip="The text encoder of this model."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    default=WEIGHTED,
                    tooltip="The prompt. (words:w) weighs words: 1 changes nothing, 1.2 to 2 is "
                    "more, 0 takes their part away, -0.5 to -2 pushes away; (words) is 1.1. The "
                    "clean text is encoded, once.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    round=False,
                    optional=True,
                    advanced=True,
                    tooltip="Scales the distance of all weights from 1: 0 turns them off, 2 makes "
                    "1.5 count as 2.",
                ),
                share_input(
                    "start", 0.0, "Share of the steps at which the weights begin to act.", True
                ),
                share_input("end", 1.0, "Share of the steps from which they act no more.", True),
                io.String.Input(
                    "blocks",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Attention blocks in which they act, counted from 0 over those that "
                    "read the prompt: '0-8, 12'. Empty: all.",
                ),
                io.Combo.Input(
                    "acts_on",
                    options=[VALUES, SCORES],
                    default=VALUES,
                    optional=True,
                    advanced=True,
                    tooltip="values: what a word adds to the picture is multiplied, linear in the "
                    "weight (the paper's). scores: its share of the attention is, which takes from "
                    "the other words and saturates; weights up to 0 act on values there too.",
                ),
                io.Combo.Input(
                    "queries",
                    options=[ALL, IMAGE],
                    default=ALL,
                    optional=True,
                    advanced=True,
                    tooltip="Who sees the weights in models where text and image attend together. "
                    "image: only image positions, as in the paper.",
                ),
                passed_positive(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="To the sampler."),
                io.Conditioning.Output(
                    display_name="positive", tooltip="To the sampler: the clean prompt's encoding."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        text: str,
        strength: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
        blocks: str = "",
        acts_on: str = VALUES,
        queries: str = ALL,
        positive: list | None = None,
    ) -> io.NodeOutput:
        """positive: for the page alone, which passes it on where this node is bypassed."""
        settings = WeightSettings(
            strength=strength,
            window=checked_window(start, end, "start and end"),
            blocks=parse_blocks(blocks),
            scores=acts_on == SCORES,
            image_only=queries == IMAGE,
        )
        return io.NodeOutput(*prompt_weights(model, clip, text, settings))


NODES = [PromptWeights]
