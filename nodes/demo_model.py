"""A tiny text-to-image model that ships with the pack: every workflow runs without a download."""

from __future__ import annotations

from comfy_api.latest import io

from .host.demo_model import INSTRUCTIONS, TEXT_TO_IMAGE, load_demo_model
from .host.demo_size import empty_latent, watched
from .host.messages import text_on


class DemoModel(io.ComfyNode):
    """Load one of the embedded demo models."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """MODEL, CLIP and VAE as from a checkpoint loader, and a LATENT of their size."""
        return io.Schema(
            node_id="P2PDemoModel",
            display_name="P2P Demo Model",
            category="p2p/demo",
            description=(
                "A tiny text-to-image model inside this pack, for trying the edits in a second on "
                "any computer. It paints the scenes of a picture book at 128x128, for prompts such "
                "as 'a cat in the snow' or 'a red car on the beach'. Use its latent of "
                "128x128, 20 steps, cfg 6, sampler euler, scheduler normal."
            ),
            search_aliases=["demo", "tiny model", "checkpoint", "example"],
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=[TEXT_TO_IMAGE, INSTRUCTIONS],
                    default=TEXT_TO_IMAGE,
                    optional=True,
                    tooltip="'instructions' follows sentences such as 'make it blue' on a given "
                    "picture: for IP2P Conditioning.",
                ),
            ],
            outputs=[
                io.Model.Output(id="model", display_name="model"),
                io.Clip.Output(id="clip", display_name="clip"),
                io.Vae.Output(id="vae", display_name="vae"),
                io.Latent.Output(
                    id="latent",
                    display_name="latent",
                    tooltip="One empty picture of the model's own size, to a P2P Edit, a P2P "
                    "Attention Controller or a sampler.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, variant: str = TEXT_TO_IMAGE) -> io.NodeOutput:
        """Load the weights."""
        model, clip, vae = load_demo_model(variant=variant)
        return io.NodeOutput(watched(model, text_on(cls)), clip, vae, empty_latent(model))


NODES = [DemoModel]
