"""Compare: source and edits of a run apart, and all of them on one labelled sheet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..p2p_core.record import Record
from ..p2p_core.schedule import WHOLE_RUN
from .edit_words import asked_later, split_phrases
from .heat_sheet import heat_picture
from .host.messages import pictures_for_page
from .host.wires import lacking, wired
from .run_pictures import by_seed, run_inputs, run_pictures
from .sheets import sheet

NEEDS_RECORD = (
    "Wire the record of the P2P Edit or P2P Attention Controller that made the pictures; for plain "
    "ones take PreviewImage."
)


class Compare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PCompare",
            display_name="P2P Compare",
            category="p2p",
            description="Takes the pictures of a run apart: the sources, the edits, and a labelled "
            "sheet with one row a seed, which tells what changed in every edit. Wire the decoded "
            "images, or the sampler's latent and a VAE.",
            search_aliases=["before after", "contact sheet", "compare edits"],
            inputs=[
                *run_inputs(),
                io.Boolean.Input(
                    "difference",
                    default=False,
                    optional=True,
                    tooltip="A second row a seed: how far every edit is from its source.",
                ),
                io.String.Input(
                    "heat_words",
                    default="",
                    optional=True,
                    tooltip="Words of either prompt, separated by commas: a further row for each, "
                    "which shows where it looks. Needs the controller's record_maps.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="source", tooltip="One picture a seed."),
                io.Image.Output(
                    display_name="edits",
                    tooltip="[edit, edit_2 …] of the first seed, then the next.",
                ),
                io.Image.Output(display_name="sheet", tooltip="All of them, labelled."),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, input_types: Mapping[str, str] | None = None) -> bool:
        if "record" not in wired(cls, input_types):
            raise lacking(cls, "record", NEEDS_RECORD)
        return True

    @classmethod
    def check_lazy_status(
        cls, record: Record | None = None, heat_words: str = "", **others: Any
    ) -> list[str]:
        """Look for the words before anything is sampled; then ask for what is wired."""
        return asked_later(record, split_phrases(heat_words), others, ("images", "samples"))

    @classmethod
    def execute(
        cls,
        record: Record | None = None,
        images: Tensor | None = None,
        samples: dict | None = None,
        vae: Any = None,
        difference: bool = False,
        heat_words: str = "",
    ) -> io.NodeOutput:
        if record is None:
            raise lacking(cls, "record", NEEDS_RECORD)
        pictures = run_pictures("P2P Compare", images, samples, vae)
        seeds = by_seed("P2P Compare", pictures, record)
        source, edits = seeds[:, 0], seeds[:, 1:].flatten(0, 1)
        heat = _heat(record, heat_words, pictures, samples)
        whole = sheet(seeds, record.labels, difference, heat)[None]
        shown = pictures_for_page(seeds.flatten(0, 1), "P2P_compare")
        pairs = {"p2p_pairs": [{"labels": record.labels, "pictures": shown}] if shown else []}
        return io.NodeOutput(source, edits if len(edits) else source, whole, ui=pairs)


def _heat(
    record: Record, words: str, pictures: Tensor, samples: dict | None
) -> dict[str, dict[int, Tensor]]:
    """Where each of the words looks: row -> (H, W, 3), for the rows whose prompt has it."""
    found = {}
    for word in split_phrases(words):
        columns = record.columns(word)
        run = (
            record.last_run(len(pictures)) if samples is None else record.run_of(samples["samples"])
        )
        maps = record.word_maps(run, columns, WHOLE_RUN)
        size = (pictures.shape[1], pictures.shape[2])
        found[word] = {row: heat_picture(m, size, pictures, row) for row, m in maps.items()}
    return found


NODES = [Compare]
