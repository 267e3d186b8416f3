"""What an AttentionController puts on a model, before any run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...p2p_core.edits import PromptEdit
from ...p2p_core.inversion import Inversion
from ...p2p_core.maps import MapStore, coarse_level, size_at
from ...p2p_core.record import Record
from .models import Layer

RECORD_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class ControlPlan:
    """The edits of one source, and where they apply.

    tag: marks the CONDITIONING that belongs to the plan. tokens: columns of that conditioning.
    layers: the UNet's attention layers and their levels. self_attention_limit: most query tokens of
    a layer that gets the source's self-attention, None for max(1024, latent tokens / 4).
    record: where runs leave their attention maps, None for nowhere. inversion: what the source rows
    follow, None if they are sampled like the others.
    """

    tag: str
    edits: tuple[PromptEdit, ...]
    tokens: int
    layers: Mapping[Layer, int]
    self_attention_limit: int | None
    record: Record | None
    inversion: Inversion | None = None

    @property
    def group(self) -> int:
        """Rows of one seed: the source and its edits."""
        return 1 + len(self.edits)

    @property
    def blends(self) -> bool:
        """Whether any edit is confined by a local blend."""
        return any(edit.blend is not None for edit in self.edits)

    def limit_for(self, size: tuple[int, int]) -> int:
        """Most query tokens of a layer with self-attention injection, for a latent size (h, w)."""
        return self.self_attention_limit or max(1024, size[0] * size[1] // 4)

    def map_layers(self, size: tuple[int, int]) -> set[Layer]:
        """The layers of the one coarse resolution whose maps are collected."""
        level = coarse_level(size, tuple(self.layers.values()))
        return {layer for layer, own in self.layers.items() if own == level}

    def map_store(self, rows: int, size: tuple[int, int], steps: int) -> MapStore | None:
        """An empty store for a run of ``rows`` pictures, or None if nobody wants maps.

        A record keeps every step while that fits RECORD_BYTES, and merges neighbours beyond it; one
        more is the sum over the run.
        """
        if self.record is None and not self.blends:
            return None
        height, width = size_at(size, coarse_level(size, tuple(self.layers.values())))
        step_bytes = rows * height * width * self.tokens * 4
        bins = max(RECORD_BYTES // step_bytes - 1, 1) if self.record is not None else 1
        return MapStore((height, width), steps, bins)
