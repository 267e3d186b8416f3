"""A tiny text-to-image model that ships with the pack: every workflow runs without a download."""

from __future__ import annotations

from comfy_api.latest import io

from .host.demo_model import INSTRUCTIONS, PICTURE_BOOK, TEXT_TO_IMAGE, load_demo_model


class DemoModel(io.ComfyNode):
    """Load one of the embedded demo models."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """MODEL, CLIP and VAE as from a checkpoint loader."""
        return io.Schema(
            node_id="P2PDemoModel",
            display_name="P2P Demo Model",
            category="p2p/demo",
            description=(
                "A tiny text-to-image model inside this pack, for trying the edits in a second on "
                "any computer. It paints shapes at 128x128, for prompts such as 'a big striped red "
                "circle on a green background', or scenes of a picture book, such as 'a cat in "
                "the snow'. Use an empty latent of 128x128, 20 steps, cfg 6, sampler "
                "euler, scheduler normal."
            ),
            search_aliases=["demo", "prompt to prompt", "tiny model", "checkpoint", "example"],
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=[TEXT_TO_IMAGE, INSTRUCTIONS, PICTURE_BOOK],
                    default=TEXT_TO_IMAGE,
                    optional=True,
                    tooltip="'instructions' follows sentences such as 'make it blue' on a given "
                    "picture: for IP2P Conditioning. 'picture book' paints animals and things in "
                    "places instead of shapes.",
                ),
            ],
            outputs=[
                io.Model.Output(id="model", display_name="model"),
                io.Clip.Output(id="clip", display_name="clip"),
                io.Vae.Output(id="vae", display_name="vae"),
            ],
        )

    @classmethod
    def execute(cls, variant: str = TEXT_TO_IMAGE) -> io.NodeOutput:
        """Load the weights."""
        return io.NodeOutput(*load_demo_model(variant=variant))


NODES = [DemoModel]
