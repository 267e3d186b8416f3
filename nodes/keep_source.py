"""KeepSource: re-editing a picture without evaluating its source again."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..p2p_core.kept import KeptSource
from ..p2p_core.schedule import checked_window
from .edit_words import CROSS_REPLACE_STEPS, SELF_REPLACE_STEPS, share_input
from .host.kept.sizes import GIGABYTE, forecast_of
from .host.messages import text_on
from .sockets import SourceSocket

KEEPS = {"full": True, "light": False}
CHANGED = {"keep anew": False, "refuse": True}


class KeepSource(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PKeepSource",
            display_name="P2P Keep Source",
            category="p2p",
            description="Keeps the source of a run, so that the next edits of it cost half: wire "
            "it to kept_source of P2P Edit or P2P Attention Controller, with the sampler's seed "
            "fixed. Another word, scale or blend then evaluates two rows a step instead of four "
            "(at cfg 1 one instead of two), and gives the same picture. Says how much memory that "
            "takes before anything is kept.",
            search_aliases=["cache source", "faster edits", "re-edit"],
            inputs=[
                io.Model.Input("model", tooltip="The model that is edited."),
                io.Latent.Input("latent", tooltip="The latent that is edited: its size counts."),
                io.Combo.Input(
                    "keep",
                    options=list(KEEPS),
                    default="full",
                    tooltip="full: also what edits take from the source's attention, which is then "
                    "evaluated no more; gigabytes for a large transformer. light: the source's "
                    "path alone, a few MB; the source is evaluated inside the windows, which are "
                    "short on transformers (a fifth of the steps in mode auto).",
                ),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=10000,
                    tooltip="Steps of the sampler, for the size that is told. Samplers that ask "
                    "the model twice a step (heun, dpm_2, dpmpp_sde …) take twice as much.",
                ),
                share_input(
                    "cross_replace_steps",
                    CROSS_REPLACE_STEPS,
                    "Share of the steps whose cross-attention is kept: the longest window that "
                    "edits will have.",
                ),
                share_input(
                    "self_replace_steps",
                    SELF_REPLACE_STEPS,
                    "The same for self-attention.",
                ),
                io.Float.Input(
                    "budget",
                    default=2.0,
                    min=0.0,
                    max=1000.0,
                    step=0.1,
                    optional=True,
                    tooltip="Most memory for it, in GB (of the CPU's). Where it ends, the source "
                    "is evaluated as ever.",
                ),
                io.Combo.Input(
                    "when_changed",
                    options=list(CHANGED),
                    default="keep anew",
                    optional=True,
                    tooltip="When anything that the source depends on has changed (seed, prompt, "
                    "model, LoRA, sampler, size, cfg …): keep the new source, or stop and say what "
                    "has changed.",
                ),
            ],
            outputs=[
                SourceSocket.Output(
                    display_name="kept_source",
                    tooltip="To P2P Edit or P2P Attention Controller.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        latent: dict,
        keep: str,
        steps: int = 20,
        cross_replace_steps: float = CROSS_REPLACE_STEPS,
        self_replace_steps: float = SELF_REPLACE_STEPS,
        budget: float = 2.0,
        when_changed: str = "keep anew",
    ) -> io.NodeOutput:
        tell = text_on(cls)
        source = KeptSource(
            full=KEEPS[keep],
            cross_window=checked_window(0.0, cross_replace_steps, "cross_replace_steps"),
            self_window=checked_window(0.0, self_replace_steps, "self_replace_steps"),
            budget=int(budget * GIGABYTE),
            refuses=CHANGED[when_changed],
            tell=tell,
        )
        tell(forecast_of(source, model, latent, steps))
        return io.NodeOutput(source)


NODES = [KeepSource]
