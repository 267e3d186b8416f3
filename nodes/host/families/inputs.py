"""The inputs of one model call: single rows of them, other latent sizes, other texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .following import TrialBlocks

REFERENCES, REFERENCE_EDGE = "ref_latents", 8  # where the host puts them; of those in a trial
FOREIGN = ("wrappers", "callbacks", "patches", "patches_replace", "optimized_attention_override")


@dataclass(frozen=True, eq=False)
class Inputs:
    """What an APPLY_MODEL wrapper was given. x: (B, C, …, h, w); text: (B, T, C)."""

    x: Tensor
    t: Tensor
    concat: Tensor | None
    text: Tensor
    extras: Mapping[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        return self.x.shape[-2], self.x.shape[-1]

    @property
    def references(self) -> Sequence[Tensor]:
        """The latents of reference pictures, (B, C, …, h, w) each."""
        given = self.extras.get(REFERENCES)
        return given if isinstance(given, list) else ()

    def with_references(self, references: Sequence[Tensor]) -> Inputs:
        return replace(self, extras={**self.extras, REFERENCES: list(references)})

    def with_small_references(self) -> Inputs:
        """The same with a corner of every reference: a trial need not look at whole pictures."""
        if not self.references:
            return self
        edge = REFERENCE_EDGE
        return self.with_references([one[..., :edge, :edge] for one in self.references])

    def rows(self, rows: list[int]) -> Inputs:
        """Some rows of the batch, each as often as it is named."""
        count = len(self.x)

        def take(value: Any) -> Any:
            return rows_of(value, rows, count)

        extras = {name: take(value) for name, value in self.extras.items()}
        return Inputs(take(self.x), take(self.t), take(self.concat), take(self.text), extras)

    def sized(self, size: tuple[int, int]) -> Inputs:
        """The same over another latent size: everything of the latent's extent wraps around."""
        own = self.size

        def fit(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.ndim < 3 or value.shape[-2:] != own:
                return value
            rows, columns = (
                torch.arange(n, device=value.device) % o for n, o in zip(size, own, strict=True)
            )
            return value.index_select(-2, rows).index_select(-1, columns)

        extras = {name: fit(value) for name, value in self.extras.items()}
        return replace(self, x=fit(self.x), concat=fit(self.concat), extras=extras)

    def run(
        self, apply: Callable[..., Tensor], options: dict, attention: Callable,
        blocks: TrialBlocks | None = None,
    ) -> Tensor:  # fmt: skip
        """One call of the model with another attention, and with dicts that it may write into.

        Other packs' wrappers and patches, and ControlNets, are left out. blocks: who watches them.
        """
        chunks = {"cond_or_uncond": [0], "optimized_attention_override": attention}
        own = {**bare(options), **chunks}
        if blocks is not None:
            own = blocks.installed(own)
        return apply(self.x, self.t, self.concat, self.text, None, own, **self.extras)


def rows_of(value: Any, rows: list[int], count: int) -> Any:
    """The rows of whatever has one for each of ``count``; anything else as it is."""
    if isinstance(value, dict):
        return {name: rows_of(part, rows, count) for name, part in value.items()}
    if isinstance(value, list):
        return [rows_of(part, rows, count) for part in value]
    if isinstance(value, Tensor) and value.ndim and len(value) == count:
        return value[torch.tensor(rows, device=value.device)]
    return value


def bare(options: dict) -> dict:
    """transformer_options without other packs' wrappers and patches; dicts in it are copies."""
    return {
        name: dict(value) if isinstance(value, dict) else value
        for name, value in options.items()
        if name not in FOREIGN
    }
