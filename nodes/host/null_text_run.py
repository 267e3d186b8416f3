"""Sampling with optimised null embeddings: a model that finds back to the inverted pictures.

The model carries one OUTER_SAMPLE wrapper that holds the frozen table. A run of it gives every row
of the tagged negative its picture's embedding of the current step, and starts at the inversion's
noisiest latent, whatever noise the sampler adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any
from uuid import UUID, uuid4

import torch
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ...p2p_core.schedule import step_index
from .null_text_wiring import (
    KEY,
    TAG,
    NullText,
    check_cfg,
    check_unchanged,
    check_whole_picture,
    checked_sampler,
    tagged_chunks,
)
from .pinning import check_schedule
from .steps import with_steps


def with_null_text(model: Any, negative: list, table: NullText) -> tuple[Any, list[list]]:
    """A clone of the model that samples with the table, and the negative that goes with it."""
    tag = uuid4().hex
    patched = model.clone()
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _OuterSample(table, tag))
    return patched, [[cross, {**values, TAG: tag}] for cross, values in negative]


class _OuterSample:
    """The OUTER_SAMPLE wrapper: checks the wiring, hooks in, and sees that the table was used."""

    def __init__(self, table: NullText, tag: str) -> None:
        self.table, self.tag = table, tag

    def __call__(
        self,
        executor: Callable,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        sigmas: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        guider, levels = executor.class_obj, sigmas.tolist()
        chunks = tagged_chunks(guider.conds, self.tag, self.table)
        if len(levels) < 2:
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        check_whole_picture(args[0] if args else kwargs.get("denoise_mask"), guider.conds)
        if self.table.cfg is not None:
            check_cfg(guider, self.table.cfg)
        check_unchanged(guider.model_patcher, self.table)
        run = _Run(self.table, guider.model_patcher.model, levels, noise, chunks)
        add_wrapper_with_key(
            WrappersMP.APPLY_MODEL, KEY, run.apply_model, guider.model_options, True
        )
        watched = with_steps(checked_sampler(sampler), run.on_step)
        samples = executor(noise, latent_image, watched, sigmas, *args, **kwargs)
        run.check_reached()
        return samples


class _Run:
    """One sampling run. noise: (B * group, C, h, w), a group of rows for every inverted picture."""

    def __init__(
        self, table: NullText, model: Any, sigmas: Sequence[float], noise: Tensor, chunks: Set[UUID]
    ) -> None:
        self.table, self.model, self.sigmas, self.chunks = table, model, sigmas, chunks
        self.first = check_schedule(table.inversion, sigmas)
        self.begins = self.first == 0 or bool(noise.any())
        self.reached = False
        pictures, rows = len(table.inversion.latent), len(noise)
        if rows % pictures:
            raise ValueError(
                f"The null embeddings are those of {pictures} pictures, but the sampler got a "
                f"latent batch of {rows}. Wire the inversion's latent, or the latent output of an "
                "AttentionController that got it."
            )

    def on_step(self, step: int, x: Tensor) -> None:
        """Where a run begins set x, (B * group, C, h, w), to the inverted latents.

        A run without noise of its own goes on with another's.
        """
        if step == 0 and self.begins:
            inversion = self.table.inversion
            clean = self.model.process_latent_in(inversion.latent.to(x))
            start = clean + inversion.offsets[self.first].to(x)
            x.copy_(start.repeat_interleave(len(x) // len(start), dim=0))

    def apply_model(
        self,
        executor: Callable,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The APPLY_MODEL wrapper: the negative's rows get the embeddings of this step."""
        options = transformer_options or {}
        uuids = options.get("uuids", ())
        if c_crossattn is not None and not self.chunks.isdisjoint(uuids):
            c_crossattn = self._swapped(c_crossattn, uuids, float(options["sigmas"].max()))
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def _swapped(self, c_crossattn: Tensor, uuids: Sequence[UUID], sigma: float) -> Tensor:
        """(chunks * rows, T, D) with our chunks replaced. The host tiles short prompts."""
        step = self.first + step_index(sigma, self.sigmas)
        null = self.table.embeddings[step].to(c_crossattn)
        parts = list(c_crossattn.chunk(len(uuids)))
        tiles = parts[0].shape[1] // null.shape[1]
        rows = null.repeat(1, tiles, 1).repeat_interleave(len(parts[0]) // len(null), dim=0)
        self.reached = True
        return torch.cat(
            [rows if uuid in self.chunks else part for part, uuid in zip(parts, uuids, strict=True)]
        )

    def check_reached(self) -> None:
        """A run that never evaluated the negative would be an ordinary one, without a word."""
        if not self.reached and self.table.cfg is not None:
            raise ValueError(
                "The negative of P2P Null-Text Optimize was never evaluated in this run, so the "
                "picture was not reconstructed. Use a sampler and a guider with a negative, at "
                f"cfg {self.table.cfg:g}."
            )
