"""IP2PConditioning: edit a picture by an instruction, at two scales. arXiv:2211.09800."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from .host.instruct.conditioning import FITS, instruct


class IP2PConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IP2PConditioning",
            display_name="IP2P Conditioning",
            category="p2p/instruct",
            description="Edits a picture by an instruction, such as 'make it snowy': wire model, "
            "positive, negative and latent to an ordinary KSampler. Its cfg is the text guidance, "
            "image_cfg the image guidance. Needs an instruct-pix2pix checkpoint. "
            "(InstructPix2Pix, arXiv:2211.09800, equation 3)",
            search_aliases=[
                "instruct pix2pix",
                "ip2p",
                "edit by instruction",
                "photo edit",
                "semantic edit",
                "image cfg",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="An instruct-pix2pix checkpoint, such as instruct-pix2pix-00-22000, "
                    "also with LoRAs.",
                ),
                io.Conditioning.Input(
                    "positive",
                    tooltip="CLIPTextEncode of the instruction: 'turn him into a robot'.",
                ),
                io.Conditioning.Input(
                    "negative", tooltip="CLIPTextEncode of an empty text, or of what to avoid."
                ),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                io.Image.Input(
                    "image", tooltip="The picture to edit; of a batch, every picture is edited."
                ),
                io.Float.Input(
                    "image_cfg",
                    default=1.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="How closely the result follows the picture (the paper uses 1 to 2.5, "
                    "with cfg 5 to 10). Raise it if too much changes, lower it if too little does. "
                    "1: the ordinary guidance, in two instead of three evaluations a step.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default=FITS[0],
                    optional=True,
                    advanced=True,
                    tooltip="For sides that are no multiples of 8 pixels. crop: cut off up to 7 "
                    "pixels, evenly on both sides. pad: repeat the last pixels on the right and "
                    "below.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="To the sampler."),
                io.Conditioning.Output(
                    display_name="positive", tooltip="To the sampler: instruction and picture."
                ),
                io.Conditioning.Output(
                    display_name="negative", tooltip="To the sampler: the picture alone."
                ),
                io.Conditioning.Output(
                    display_name="uncond",
                    tooltip="Neither picture nor instruction. Only for a DualCFGGuider (regular): "
                    "cond1 positive, cond2 negative, negative uncond.",
                ),
                io.Latent.Output(
                    display_name="latent", tooltip="To the sampler: empty, of the picture's size."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: list,
        negative: list,
        vae: Any,
        image: Tensor,
        image_cfg: float = 1.5,
        fit: str = FITS[0],
    ) -> io.NodeOutput:
        return io.NodeOutput(*instruct(model, positive, negative, vae, image, image_cfg, fit))


NODES = [IP2PConditioning]
