"""AttentionMaps: where the words of a run looked, as pictures and as masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor

from ..p2p_core.pictures import enlarged, normalised
from ..p2p_core.record import Record, RunRecord
from ..p2p_core.schedule import Window, checked_window
from .edit_words import asked_later, share_input, split_phrases
from .first_prompts import THING
from .heat_sheet import stacked, word_sheet
from .host.wires import lacking, wired
from .sockets import RecordSocket

NEEDS_RECORD = (
    "Wire the record of the P2P Attention Controller whose model is sampled; for a prompt without "
    "an edit put a P2P Plain Prompt before it."
)


class AttentionMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PAttentionMaps",
            display_name="P2P Attention Maps",
            category="p2p",
            description="Shows where words look: a heat-map sheet for every word, the map as a "
            "mask, and the local blend's mask. Wire the controller's record and the latent that "
            "its sampler made. For a prompt without an edit use P2P Plain Prompt.",
            search_aliases=[
                "heat map",
                "heatmap",
                "attention map",
                "daam",
                "cross attention",
                "word mask",
            ],
            inputs=[
                RecordSocket.Input(
                    "record", optional=True, tooltip="From the P2P Attention Controller."
                ),
                io.Latent.Input(
                    "samples", lazy=True, tooltip="The sampler's output of the same run."
                ),
                io.String.Input(
                    "words",
                    default=THING,
                    tooltip="Words or phrases of the source or target prompt, separated by commas.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    lazy=True,
                    tooltip="The decoded samples, to lay the heat maps over them.",
                ),
                share_input("start", 0.0, "First step shown, as a share of the steps."),
                share_input("end", 1.0, "Last step shown, as a share of the steps."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    tooltip="One sheet a word, one row a seed: the pictures whose prompt has it.",
                ),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="One mask a word, 0 to 1, of the first picture whose prompt has it.",
                ),
                io.Mask.Output(
                    display_name="blend_mask",
                    tooltip="The last local blend mask in the range, one for each edited picture; "
                    "all white without a local blend.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, words: str | None = None, input_types: Mapping[str, str] | None = None
    ) -> bool:
        if "record" not in wired(cls, input_types):
            raise lacking(cls, "record", NEEDS_RECORD)
        if words is not None:
            _phrases(words)
        return True

    @classmethod
    def check_lazy_status(
        cls, record: Record | None = None, words: str = "", **others: Any
    ) -> list[str]:
        """Look for the words before anything is sampled; then ask for what is wired."""
        return asked_later(record, _phrases(words), others, ("samples", "image"))

    @classmethod
    def execute(
        cls,
        samples: dict,
        words: str,
        record: Record | None = None,
        image: Tensor | None = None,
        start: float = 0.0,
        end: float = 1.0,
    ) -> io.NodeOutput:
        if record is None:
            raise lacking(cls, "record", NEEDS_RECORD)
        run = record.run_of(samples["samples"])
        window = _checked_range(start, end)
        size = _picture_size(run, image, record.pixels_per_latent)
        sheets, masks = [], []
        for word in _phrases(words):
            maps = record.word_maps(run, record.columns(word), window)
            sheets.append(word_sheet(word, maps, record.labels, size, image))
            masks.append(enlarged(normalised(next(iter(maps.values()))[None]), size))
        blend_mask = _blend_mask(run, window, size)
        return io.NodeOutput(stacked(sheets), torch.cat(masks), blend_mask)


def _phrases(words: str) -> list[str]:
    if phrases := split_phrases(words):
        return phrases
    raise ValueError("words is empty. Name at least one word of the source or target.")


def _checked_range(start: float, end: float) -> Window:
    """The steps [start, end), where an end of 1 includes the last step; ValueError if empty."""
    window = checked_window(start, end, "The range from start to end")
    return Window(window.start, math.inf) if end == 1 else window


def _picture_size(run: RunRecord, image: Tensor | None, scale: int) -> tuple[int, int]:
    """(H, W) of the decoded pictures, each ``scale`` times the latent's.

    ValueError if the image is not the run's.
    """
    rows, (height, width) = len(run.samples), run.samples.shape[-2:]
    if image is None:
        return height * scale, width * scale
    if image.shape[0] != rows:
        raise ValueError(
            f"image holds {image.shape[0]} pictures, but the run made {rows}. Wire the decoded "
            "samples of the same run, or leave image empty."
        )
    return image.shape[1], image.shape[2]


def _blend_mask(run: RunRecord, window: Window, size: tuple[int, int]) -> Tensor:
    mask = run.blend_mask(window)
    if mask is None:
        return torch.ones(1, *size)
    return F.interpolate(mask[:, None].float(), size=size)[:, 0]


NODES = [AttentionMaps]
