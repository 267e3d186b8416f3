"""EditScores: how well an edit shows its words, and what else it changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..p2p_core.record import Record
from ..p2p_core.scores import csv_table, text_table
from .edit_words import asked_later
from .host.messages import text_on
from .host.wires import lacking, wired
from .run_pictures import by_seed, run_inputs, run_pictures
from .score_inputs import scorer, scorer_inputs

TITLE = "P2P Edit Scores"
NEEDS_RECORD = "Wire the record of the P2P Edit or P2P Attention Controller that made the pictures."
FLOATS = {
    "directional_similarity": "Needs clip_vision and score_clip.",
    "caption_similarity": "Of the edited picture and its prompt. Needs clip_vision and score_clip.",
    "image_similarity": "Of source and edit. Needs clip_vision.",
    "structure_distance": "DINO's if dino is wired, else the plain one.",
    "psnr": "In dB. With a mask outside of it.",
    "ssim": "With a mask outside of it.",
    "lpips": "Needs lpips. With a mask outside of it.",
}


class EditScores(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PEditScores",
            display_name=TITLE,
            category="p2p",
            description="Measures the edits of a run beside their sources: whether the picture "
            "changed as its words did (CLIP directional similarity), and how much of the source "
            "was kept (CLIP image similarity, structure distance, PSNR, SSIM, LPIPS), also inside "
            "and outside of a mask. What needs a model is measured where one is wired.",
            search_aliases=[
                "clip score",
                "clip similarity",
                "directional similarity",
                "psnr",
                "ssim",
                "lpips",
                "image metrics",
                "evaluate edit",
                "PIE-Bench",
            ],
            inputs=[
                *run_inputs(),
                *scorer_inputs(),
            ],
            outputs=[
                io.String.Output(
                    display_name="table", tooltip="All scores, a line for every edit."
                ),
                io.String.Output(display_name="csv", tooltip="The same as comma-separated values."),
                *(
                    io.Float.Output(
                        display_name=name, is_output_list=True, tooltip=f"One an edit. {needs}"
                    )
                    for name, needs in FLOATS.items()
                ),
            ],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, input_types: Mapping[str, str] | None = None) -> bool:
        if "record" not in wired(cls, input_types):
            raise lacking(cls, "record", NEEDS_RECORD)
        return True

    @classmethod
    def check_lazy_status(cls, record: Record | None = None, **others: Any) -> list[str]:
        """Refuse a scorer that cannot be before anything is sampled; then ask for what is wired."""
        scorer(**others)
        return asked_later(record, [], others, ("images", "samples"))

    @classmethod
    def execute(
        cls,
        record: Record | None = None,
        images: Tensor | None = None,
        samples: dict | None = None,
        vae: Any = None,
        **scoring: Any,
    ) -> io.NodeOutput:
        if record is None:
            raise lacking(cls, "record", NEEDS_RECORD)
        pictures = run_pictures(TITLE, images, samples, vae)
        seeds = by_seed(TITLE, pictures, record)
        if len(record.labels) == 1:
            raise ValueError(
                f"{TITLE} compares edits with their source, but this run has no edit: its prompt "
                "is plain, or enabled is off in the node that the record comes from."
            )
        source, *captions = (prompt.text for prompt in record.prompts)
        edits = seeds[:, 1:].flatten(0, 1)
        rows = scorer(**scoring).scores(seeds[:, 0], edits, source, captions)
        named = [
            {"seed": seed + 1, "edit": label}
            for seed in range(len(seeds))
            for label in record.labels[1:]
        ]
        many = len(seeds) > 1
        labels = [f"{row['edit']} (seed {row['seed']})" if many else row["edit"] for row in named]
        table = text_table(labels, rows)
        text_on(cls)(table)
        lists = [[first_of(row, name) for row in rows] for name in FLOATS]
        return io.NodeOutput(table, csv_table(named, rows), *lists)


def first_of(row: Mapping[str, float], name: str) -> float:
    """A score by its common name: DINO's if there is one, outside of the mask if there is one."""
    names = (f"dino_{name}", f"{name}_outside", name)
    return next((row[key] for key in names if key in row), math.nan)


NODES = [EditScores]
