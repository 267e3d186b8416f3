"""What an AttentionController puts on a model, before any run."""

from __future__ import annotations

from dataclasses import dataclass

from ....p2p_core.edits import PromptEdit
from ....p2p_core.inversion import Inversion
from ....p2p_core.maps import MapStore
from ....p2p_core.record import Record
from ..families.unet import UNetFamily

RECORD_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class ControlPlan:
    """The edits of one source, and where they apply.

    tag: marks the CONDITIONING that belongs to the plan. edits: of the source. lengths: columns of
    every prompt, [source, target of edit 1 …]. family: the model's. self_replace_tokens: most image
    positions of a layer that gets the source's self-attention, None for the family's own limit.
    record: where runs leave their attention maps, None for nowhere. inversion: what the source rows
    follow, None if they are sampled like the others.
    """

    tag: str
    edits: tuple[PromptEdit, ...]
    lengths: tuple[int, ...]
    family: UNetFamily
    self_replace_tokens: int | None
    record: Record | None
    inversion: Inversion | None = None

    @property
    def group(self) -> int:
        """Rows of one seed: the source and its edits."""
        return 1 + len(self.edits)

    @property
    def columns(self) -> int:
        """Columns of the conditioning, to which shorter prompts are filled up."""
        return max(self.lengths)

    @property
    def blends(self) -> bool:
        """Whether any edit is confined by a local blend."""
        return any(edit.blend is not None for edit in self.edits)

    def self_attention_limit(self, size: tuple[int, int]) -> int:
        """Most image positions of a layer with self-attention injection, for a latent (h, w)."""
        return self.self_replace_tokens or self.family.self_attention_limit(size)

    def map_store(self, rows: int, size: tuple[int, int], steps: int) -> MapStore | None:
        """An empty store for a run of ``rows`` pictures, or None if nobody wants maps.

        A record keeps every step while that fits RECORD_BYTES, and merges neighbours beyond it; one
        more is the sum over the run.
        """
        if self.record is None and not self.blends:
            return None
        height, width = self.family.map_size(size)
        step_bytes = rows * height * width * self.columns * 4
        bins = max(RECORD_BYTES // step_bytes - 1, 1) if self.record is not None else 1
        return MapStore((height, width), steps, bins)
