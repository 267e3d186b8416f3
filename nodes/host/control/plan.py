"""What an AttentionController puts on a model, before any run."""

from __future__ import annotations

from dataclasses import dataclass

from ....p2p_core.edits import PromptEdit
from ....p2p_core.inversion import Inversion
from ....p2p_core.kept import KeptSource
from ....p2p_core.maps import MapStore
from ....p2p_core.prompt import Prompt
from ....p2p_core.record import Record
from ..families.transformer import TransformerFamily
from ..families.unet import UNetFamily
from .texts import Encoded

RECORD_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class ControlPlan:
    """The edits of one source, and where they apply.

    tag: marks the CONDITIONING that belongs to the plan. edits: of the source. prompts: [source,
    target of edit 1 …]. family: the model's. self_replace_tokens: most image positions of a layer
    that gets the source's self-attention, None for the family's own limit. record: where runs leave
    their attention maps, None for nowhere. inversion: what the source rows follow, None if they are
    sampled like the others. kept: where a run's source is kept for the next ones, None for nowhere.
    Of transformers alone: texts: the prompts' encodings. mode: see modes.py. blocks: numbers of the
    layers that are edited, None for all.
    """

    tag: str
    edits: tuple[PromptEdit, ...]
    prompts: tuple[Prompt, ...]
    family: UNetFamily | TransformerFamily
    self_replace_tokens: int | None
    record: Record | None
    inversion: Inversion | None = None
    kept: KeptSource | None = None
    texts: tuple[Encoded, ...] = ()
    mode: str = "auto"
    blocks: frozenset[int] | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Columns of every prompt."""
        return tuple(prompt.length for prompt in self.prompts)

    @property
    def text_shape(self) -> tuple[int, int]:
        """Rows and columns of the positive: of a transformer's, the source alone."""
        if self.texts:
            rows, columns, _ = self.texts[0].cross_attn.shape
            return rows, columns
        return self.group, self.columns

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

    @property
    def reads_maps(self) -> bool:
        """Whether anybody wants the attention maps of a run."""
        return self.record is not None or self.blends

    def map_store(self, rows: int, size: tuple[int, int], steps: int) -> MapStore:
        """An empty store for a run of ``rows`` pictures.

        A record keeps every step while that fits RECORD_BYTES, and merges neighbours beyond it; one
        more is the sum over the run.
        """
        height, width = self.family.map_size(size)
        step_bytes = rows * height * width * self.columns * 4
        bins = max(RECORD_BYTES // step_bytes - 1, 1) if self.record is not None else 1
        return MapStore((height, width), steps, bins)


def check_unet_plan(plan: ControlPlan) -> None:
    """ValueError for what only transformers have."""
    if plan.mode != "auto" or plan.blocks is not None:
        raise ValueError(
            "mode and blocks of the AttentionController are for transformers, but this model is a "
            'UNet, whose edits are always made as the paper makes them. Set mode to "auto" and '
            "leave blocks empty."
        )


def check_transformer_plan(plan: ControlPlan, text_l: str) -> None:
    """ValueError for what only UNets have."""
    if text_l.strip():
        raise ValueError(
            "text_l of the AttentionController is for SDXL, but this model is a transformer. Leave "
            "it empty."
        )
    if plan.self_replace_tokens is not None:
        raise ValueError(
            "self_replace_tokens of the AttentionController is for UNets, whose layers differ in "
            "resolution; in a transformer all are alike. Set it to 0."
        )
    if plan.inversion is not None:
        raise ValueError(
            "Edits of an inverted photograph need a UNet (SD1, SD2, SDXL) so far, but this "
            "model is a transformer. Remove the inversion."
        )
