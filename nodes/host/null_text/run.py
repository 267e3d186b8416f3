"""Sampling with optimised null embeddings: a model that finds back to the inverted pictures.

A run of it gives every row of the marked negative its picture's embedding of the current step, and
starts at the inversion's noisiest latent, whatever noise the sampler adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from functools import partial
from typing import Any
from uuid import uuid4

from comfy.patcher_extension import WrappersMP
from einops import repeat
from torch import Tensor

from ....p2p_core.schedule import step_index
from ..batch import BatchRows, RowLabels, model_inputs
from ..families.clip_text import filled
from ..inversion.path import check_picture_size, check_schedule
from ..runs import NULL_TEXT, Sampling, entries, marked, with_run
from ..sampler.steps import with_steps
from .wiring import (
    NullText,
    check_cfg,
    check_negative,
    check_unchanged,
    check_whole_picture,
    checked_sampler,
)


def with_null_text(model: Any, negative: list, table: NullText) -> tuple[Any, list[list]]:
    """A clone of the model that samples with the table, and the negative that goes with it."""
    tag = uuid4().hex
    patched = with_run(model, NULL_TEXT, tag, partial(_begin, table, tag))
    return patched, marked(negative, NULL_TEXT, tag)


def _begin(table: NullText, tag: str, sampling: Sampling) -> NullTextRun | None:
    guider = sampling.guider
    check_negative(guider.conds, tag, table)
    if len(sampling.sigmas) < 2:
        return None
    check_whole_picture(sampling.denoise_mask, guider.conds)
    if table.cfg is not None:
        check_cfg(guider, table.cfg)
    check_unchanged(guider.model_patcher, table)
    return NullTextRun(table, tag, sampling)


class NullTextRun:
    """All state of one sampling run, see ``runs.Run``; a group of rows for every picture."""

    def __init__(self, table: NullText, tag: str, sampling: Sampling) -> None:
        self.table, self.tag, self.sigmas = table, tag, sampling.sigmas
        self.model = sampling.guider.model_patcher.model
        self.first = check_schedule(table.inversion, self.sigmas)
        self.begins = self.first == 0 or bool(sampling.noise.any())
        self.labels = RowLabels(sampling)
        self.ours: Set[int] = frozenset()
        self.reached = False
        check_picture_size(table.inversion, sampling.noise)
        pictures, rows = len(table.inversion.latent), len(sampling.noise)
        if rows % pictures:
            raise ValueError(
                f"The null embeddings are those of {pictures} pictures, but the sampler got a "
                f"latent batch of {rows}. Wire the inversion's latent, or the latent output of an "
                "AttentionController that got it."
            )
        self.group = rows // pictures

    def wrappers(self) -> Mapping[str, Callable]:
        return {
            WrappersMP.SAMPLER_SAMPLE: self._sampler_sample,
            WrappersMP.APPLY_MODEL: self.apply_model,
        }

    def controlled(self, sampler: Any) -> Any:
        """A copy of the sampler that starts at the inverted pictures."""
        return with_steps(checked_sampler(sampler), self.on_step)

    def close(self) -> None:
        """The guider's options are a copy made for this run: nothing stays."""

    def _sampler_sample(self, executor: Callable, guider: Any, *args: Any) -> Tensor:
        """SAMPLER_SAMPLE wrapper: the host has prepared the conditionings, label their rows."""
        self.ours = frozenset(
            number
            for number, (_, entry) in enumerate(entries(guider.conds))
            if entry.get(NULL_TEXT.mark) == self.tag
        )
        self.labels.label(guider.conds)
        return executor(guider, *args)

    def on_step(self, step: int, x: Tensor) -> None:
        """Where a run begins set x, (B * group, C, h, w), to the inverted latents.

        A run without noise of its own goes on with another's.
        """
        if step == 0 and self.begins:
            inversion = self.table.inversion
            clean = self.model.process_latent_in(inversion.latent.to(x))
            start = clean + inversion.offsets[self.first].to(x)
            x.copy_(repeat(start, "b ... -> (b group) ...", group=self.group))

    def apply_model(self, executor: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """The APPLY_MODEL wrapper: the negative's rows get the embeddings of this step."""
        inputs = model_inputs(*args, **kwargs)
        rows = self.labels.read(inputs)
        if rows is None or inputs.c_crossattn is None:
            return inputs.evaluate(executor)
        sigma = float(inputs.options["sigmas"].max())
        text = self._swapped(inputs.c_crossattn, rows, sigma)
        return inputs._replace(c_crossattn=text).evaluate(executor)

    def _swapped(self, c_crossattn: Tensor, rows: BatchRows, sigma: float) -> Tensor:
        """(B, T, D) with our rows replaced. The host tiles short prompts."""
        negative = rows.of(self.ours)
        if not len(negative):
            return c_crossattn
        self.reached = True
        step = self.first + step_index(sigma, self.sigmas)
        pictures = rows[negative].labels[:, 1] // self.group
        null = self.table.embeddings[step][pictures.to(self.table.embeddings.device)]
        tiled = filled(null.to(c_crossattn), c_crossattn.shape[1])
        return c_crossattn.index_copy(0, negative.to(c_crossattn.device), tiled)

    def finish(self, samples: Tensor) -> Tensor:
        """A run that never evaluated the negative would be an ordinary one, without a word."""
        if not self.reached and self.table.cfg is not None:
            raise ValueError(
                "The negative of P2P Null-Text Optimize was never evaluated in this run, so the "
                "picture was not reconstructed. Use a sampler and a guider with a negative, at "
                f"cfg {self.table.cfg:g}."
            )
        return samples
