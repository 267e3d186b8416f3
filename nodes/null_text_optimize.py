"""NullTextOptimize: a photograph comes back under guidance. arXiv:2211.09794."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..p2p_core.inversion import Inversion
from ..p2p_core.null_text import Settings
from .host.messages import text_on
from .host.null_text.optimise import null_text
from .host.wires import lacking, wired
from .sockets import InversionSocket

NEEDS_INVERSION = "Wire a P2P DDIM Invert or P2P Load Inversion, or bypass this node too."


class NullTextOptimize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PNullTextOptimize",
            display_name="P2P Null-Text Optimize",
            category="p2p/inversion",
            description="Optimises the negative's embedding at every step until sampling at full "
            "guidance leads back to the inverted photograph. Wire model and negative to any "
            "deterministic sampler of the same steps and cfg, alone or through a P2P Attention "
            "Controller. (Null-text inversion, arXiv:2211.09794; with inner_steps 0 "
            "negative-prompt inversion, arXiv:2305.16807)",
            search_aliases=[
                "null text inversion",
                "negative prompt inversion",
                "photo edit",
                "edit photo",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model of the inversion, unpatched."),
                InversionSocket.Input("inversion", optional=True, tooltip="From P2P DDIM Invert."),
                io.Conditioning.Input(
                    "positive", tooltip="The prompt that the inversion was made under."
                ),
                io.Conditioning.Input(
                    "negative",
                    tooltip="Where the optimisation begins: an empty CLIPTextEncode (the paper's), "
                    "or a negative prompt.",
                ),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance of the sampler (paper: 7.5). The result is for this cfg "
                    "alone; with inner_steps 0 for any.",
                ),
                io.Int.Input(
                    "inner_steps",
                    default=10,
                    min=0,
                    max=500,
                    tooltip="The paper's updates of the embedding at each step (paper: 10); fewer "
                    "are made, from 0.35 of them at the first step to 0.8 at the last, at 2.5 to "
                    "5 times the rate. More come nearer to the photograph, take longer, and "
                    "leave less room for edits. 0: negative-prompt inversion, at once and without "
                    "optimisation: the prompt itself is the negative.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=1e-2,
                    min=1e-5,
                    max=1.0,
                    step=1e-4,
                    round=False,
                    tooltip="The paper's learning rate of Adam (0.01). It shrinks by a hundredth "
                    "with every step of the sampler.",
                ),
                io.Float.Input(
                    "early_stop",
                    default=1e-5,
                    min=0.0,
                    max=1.0,
                    step=1e-6,
                    round=False,
                    tooltip="Squared error of the latent that is good enough at the first step "
                    "(paper: 0.00001); it grows by 0.00002 a step. Smaller is nearer and slower.",
                ),
                io.Boolean.Input(
                    "checkpointing",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Activation checkpointing: less memory, for one more forward pass with "
                    "every gradient; the same result. For when the memory does not suffice.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="To the sampler, or to a P2P Attention Controller. It starts at the "
                    "inverted photograph, whatever noise the sampler adds.",
                ),
                io.Conditioning.Output(
                    display_name="negative", tooltip="To the sampler's negative."
                ),
                io.Latent.Output(
                    display_name="reconstruction",
                    tooltip="What a sampler will make of it without an edit.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, input_types: Mapping[str, str] | None = None) -> bool:
        if "inversion" not in wired(cls, input_types):
            raise lacking(cls, "inversion", NEEDS_INVERSION)
        return True

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: list,
        negative: list,
        cfg: float,
        inner_steps: int,
        learning_rate: float,
        early_stop: float,
        checkpointing: bool = False,
        inversion: Inversion | None = None,
    ) -> io.NodeOutput:
        if inversion is None:
            raise lacking(cls, "inversion", NEEDS_INVERSION)
        settings = Settings(cfg, inner_steps, learning_rate, early_stop)
        return io.NodeOutput(
            *null_text(model, inversion, positive, negative, settings, checkpointing, text_on(cls))
        )


NODES = [NullTextOptimize]
