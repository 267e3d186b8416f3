"""AttentionController: puts edits on a model, as one batch of source and edited pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..p2p_core.inversion import Inversion
from ..p2p_core.kept import KeptSource
from .host.control.modes import MODES
from .host.control.wiring import control
from .host.edits import Edit
from .host.instruct.conditioning import doubts
from .host.messages import text_on
from .host.readers import is_read
from .host.wires import lacking, wired
from .sockets import EditSocket, InversionSocket, RecordSocket, SourceSocket

MORE_EDITS = [f"edit_{number}" for number in range(2, 9)]
NEEDS_EDIT = (
    "Wire a P2P Word Swap, Refine or Reweight to edit. For the plain picture, wire a "
    "CLIPTextEncode of the prompt to positive."
)
RECORD = 3  # the number of that output


class AttentionController(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PAttentionController",
            display_name="P2P Attention Controller",
            category="p2p",
            description="Makes source and edited pictures side by side: wire model, positive and "
            "latent to any sampler. Every picture of the latent becomes a group [source, edit, "
            "edit_2, …]. Works with the ordinary samplers and beside other model patches. "
            "(Prompt-to-Prompt, arXiv:2208.01626)",
            search_aliases=[
                "p2p",
                "attention control",
                "word edit",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="An SD1, SD2 or SDXL model, or a transformer (Flux, Qwen-Image and "
                    "others: how it attends to words is found out by trying), also with LoRAs.",
                ),
                io.Latent.Input("latent", tooltip="Size and number of pictures, as for a sampler."),
                EditSocket.Input(
                    "edit",
                    optional=True,
                    tooltip="The edit to carry out. Without any, positive passes through and the "
                    "picture is the plain one.",
                ),
                *(
                    EditSocket.Input(
                        name, optional=True, tooltip="A further edit of the same source prompt."
                    )
                    for name in MORE_EDITS
                ),
                inversion_input(),
                passed_positive(),
                io.Int.Input(
                    "self_replace_tokens",
                    default=0,
                    min=0,
                    max=1 << 20,
                    optional=True,
                    advanced=True,
                    tooltip="Self-attention is taken from the source in layers of at most so many "
                    "image positions. 0: a quarter of the finest attention's, at least 1024 (the "
                    "paper's 32x32 at 512 px).",
                ),
                io.Boolean.Input(
                    "record_maps",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Keep the words' attention where a node such as P2P Attention Maps "
                    "reads the record: at most 64 MiB a run, about 4 MiB for 512 px, 20 steps and "
                    "one edit. The last 4 runs are kept.",
                ),
                io.Conditioning.Input(
                    "extras_from",
                    optional=True,
                    advanced=True,
                    tooltip="What this conditioning carries beside its text is given to source and "
                    "edits: the sizes and crops of CLIPTextEncodeSDXL, the score of the refiner's, "
                    "the picture of InpaintModelConditioning. Its text is not used.",
                ),
                io.String.Input(
                    "text_l",
                    default="",
                    optional=True,
                    advanced=True,
                    multiline=True,
                    tooltip="SDXL: what its first text encoder (CLIP-L) reads in source and edits; "
                    "the prompts are then read by the second (OpenCLIP-G) alone. Empty: both read "
                    "the prompts.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="For transformers (Z-Image, Qwen-Image, Flux …). auto: the source's "
                    "image queries and keys in the first steps (arXiv:2508.07519: 0.2 of them; in "
                    "runs of 8 steps or fewer the first). Half of self_replace_steps says how "
                    "long. qk: the same for self_replace_steps. hybrid: the words' attention is "
                    "edited as in a UNet, with cross_replace_steps, word windows and "
                    "self_replace_steps.",
                ),
                io.String.Input(
                    "blocks",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="For transformers: only these layers are edited, by number, as in "
                    "4-8, 12. Empty: all.",
                ),
                enabled_input(),
                kept_source_input(),
            ],
            outputs=controller_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, input_types: Mapping[str, str] | None = None) -> bool:
        if not {"edit", *MORE_EDITS, "positive"} & wired(cls, input_types):
            raise lacking(cls, "edit", NEEDS_EDIT)
        return True

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> bool:
        return maps_are_read(cls)

    @classmethod
    def execute(
        cls,
        model: Any,
        latent: dict,
        edit: Edit | None = None,
        self_replace_tokens: int = 0,
        record_maps: bool = True,
        inversion: Inversion | None = None,
        extras_from: list | None = None,
        text_l: str = "",
        mode: str = "auto",
        blocks: str = "",
        positive: list | None = None,
        enabled: bool = True,
        kept_source: KeptSource | None = None,
        **more_edits: Edit | None,
    ) -> io.NodeOutput:
        given = [edit, *(more_edits.get(name) for name in MORE_EDITS)]
        edits = [edit for edit in given if edit is not None]
        if not edits:
            if positive is None:
                raise lacking(cls, "edit", NEEDS_EDIT)
            return io.NodeOutput(model, positive, latent, None)
        if said := doubts(model, extras_from):
            text_on(cls)(said)
        found = control(
            model,
            latent,
            edits if enabled else [replace(edits[0], plain=True)],
            self_replace_tokens,
            record_maps and maps_are_read(cls),
            inversion,
            extras_from,
            text_l,
            mode,
            blocks,
            kept_source,
        )
        return io.NodeOutput(*found)


def maps_are_read(node: type[io.ComfyNode]) -> bool:
    """Whether another node reads attention maps in the record of a controller."""
    return is_read(node, RECORD, _looks_at_maps)


def _looks_at_maps(reader: dict[str, Any]) -> bool:
    """P2P Compare does for its heat_words alone, whoever else takes a record may."""
    words = reader["inputs"].get("heat_words", "")
    return reader["class_type"] != "P2PCompare" or words != ""


def inversion_input() -> io.Input:
    return InversionSocket.Input(
        "inversion",
        optional=True,
        tooltip="Edit a photograph: the source follows this inversion and comes out as the very "
        "picture that was inverted, at any cfg. The sampler needs the inversion's steps and "
        "scheduler; its noise does not matter.",
    )


def passed_positive() -> io.Input:
    return io.Conditioning.Input(
        "positive",
        optional=True,
        tooltip="Optional: a CLIPTextEncode of the prompt. Only for when this node is bypassed: it "
        "then goes to the sampler, which paints the plain picture.",
    )


def enabled_input() -> io.Input:
    return io.Boolean.Input(
        "enabled",
        default=True,
        optional=True,
        tooltip="Off: only the source is made, as it would be without any edit.",
    )


def kept_source_input() -> io.Input:
    return SourceSocket.Input(
        "kept_source",
        optional=True,
        advanced=True,
        tooltip="From P2P Keep Source: a run keeps its source there, and the next edits of the "
        "same source evaluate two rows a step instead of four.",
    )


def controller_outputs() -> list[io.Output]:
    """model, positive, latent, record: what a sampler is given, and what stays of its runs."""
    return [
        io.Model.Output(display_name="model", tooltip="To the sampler."),
        io.Conditioning.Output(
            display_name="positive", tooltip="To the sampler: source and target prompts."
        ),
        io.Latent.Output(
            display_name="latent",
            tooltip="To the sampler: [source, edit, edit_2 …] for every picture.",
        ),
        RecordSocket.Output(
            display_name="record", tooltip="To P2P Attention Maps and P2P Compare."
        ),
    ]


NODES = [AttentionController]
