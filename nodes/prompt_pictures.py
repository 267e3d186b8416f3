"""PromptPictures: prompts that hold pictures, for models that edit pictures by instruction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from .host.families.clip_text import checked_clip
from .host.picture_encoders import USUAL, encoder_named, encoder_names
from .host.pictured_clip import with_pictures
from .host.wires import lacking, wired

IMAGES = [f"image{number}" for number in range(1, 4)]
NEEDS_IMAGE = "Wire a picture to it, or leave this node out: prompts without pictures need none."


class PromptPictures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PPromptPictures",
            display_name="P2P Prompt Pictures",
            category="p2p",
            description="A CLIP that reads pictures with every prompt, as the model's own text "
            "encode node does (Qwen-Image-Edit, JoyImage). Wire it to the edit nodes, to P2P "
            "Prompt Weights, and to a CLIP Text Encode for the negative.",
            search_aliases=[
                "qwen image edit", "image in prompt", "picture in prompt", "vision prompt",
                "TextEncodeQwenImageEditPlus", "TextEncodeQwenImageEdit",
            ],
            inputs=[
                io.Clip.Input(
                    "clip",
                    tooltip="The text encoder of the model; it must see pictures. It stays as it "
                    "is.",
                ),
                io.Combo.Input(
                    "text_encoder",
                    options=encoder_names(),
                    default=USUAL,
                    tooltip="The node that encodes a prompt with pictures for this model. "
                    "Listed are those that take a CLIP, one prompt and pictures, and need nothing "
                    "else.",
                ),
                *(
                    io.Image.Input(
                        name,
                        optional=True,
                        tooltip=f"The picture of that node's input number {number}.",
                    )
                    for number, name in enumerate(IMAGES, start=1)
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="With it the pictures are also reference latents, of source and edits "
                    "alike, as that node makes them. Without it, put ReferenceLatent behind "
                    "positive.",
                ),
            ],
            outputs=[
                io.Clip.Output(
                    display_name="clip",
                    tooltip="To whatever takes a prompt. LoRA loaders may follow.",
                )
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, input_types: Mapping[str, str] | None = None) -> bool:
        if not set(IMAGES) & wired(cls, input_types):
            raise lacking(cls, IMAGES[0], NEEDS_IMAGE)
        return True

    @classmethod
    def execute(
        cls,
        clip: Any,
        text_encoder: str = USUAL,
        image1: Any = None,
        image2: Any = None,
        image3: Any = None,
        vae: Any = None,
    ) -> io.NodeOutput:
        pictures = (image1, image2, image3)
        if all(picture is None for picture in pictures):
            raise lacking(cls, IMAGES[0], NEEDS_IMAGE)
        encoder = encoder_named(text_encoder)
        return io.NodeOutput(with_pictures(checked_clip(clip), encoder, pictures, vae))


NODES = [PromptPictures]
