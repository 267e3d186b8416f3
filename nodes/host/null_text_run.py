"""Sampling with optimised null embeddings: a model that finds back to the inverted pictures.

The model carries one OUTER_SAMPLE wrapper that holds the frozen table. A run of it gives every row
of the tagged negative its picture's embedding of the current step, and starts at the inversion's
noisiest latent, whatever noise the sampler adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import torch
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy.samplers import KSAMPLER
from torch import Tensor

from ...p2p_core.inversion import Inversion
from ...p2p_core.schedule import step_index
from .noise import check_deterministic
from .pinning import check_schedule
from .steps import check_steps_visible, with_steps

KEY = TAG = "p2p_null_text"
WIRING = "Wire the negative output of P2P Null-Text Optimize to the sampler, beside its model"


@dataclass(frozen=True, eq=False)
class NullText:
    """The null embeddings of a run, and the run that they are for.

    embeddings: (N, B, T, D), of every step and picture. negative: (1 or B, T, D), the encoding
    that they replace. cfg: the guidance that they were optimised under.
    """

    inversion: Inversion
    embeddings: Tensor
    negative: Tensor
    cfg: float


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
        chunks = _tagged_chunks(guider.conds, self.tag, self.table)
        if len(levels) < 2:
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        _check_whole_picture(args[0] if args else kwargs.get("denoise_mask"), guider.conds)
        _check_cfg(guider, self.table.cfg)
        run = _Run(self.table, guider.model_patcher.model, levels, noise, chunks)
        add_wrapper_with_key(
            WrappersMP.APPLY_MODEL, KEY, run.apply_model, guider.model_options, True
        )
        watched = with_steps(_checked(sampler), run.on_step)
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
        if not self.reached:
            raise ValueError(
                "The negative of P2P Null-Text Optimize was never evaluated in this run, so the "
                "picture was not reconstructed. Use a sampler and a guider with a negative, at "
                f"cfg {self.table.cfg:g}."
            )


def _tagged_chunks(conds: dict[str, list[dict]], tag: str, table: NullText) -> set[UUID]:
    """The uuids of our negative; ValueError if it is missing, elsewhere, or was changed."""
    found = [(name, c) for name, entries in conds.items() for c in entries if c.get(TAG) == tag]
    if not found:
        raise ValueError(
            "The sampler's negative does not come from the P2P Null-Text Optimize that made its "
            f"model. {WIRING}."
        )
    if any(name == "positive" for name, _ in found):
        raise ValueError(
            "The negative of P2P Null-Text Optimize is wired to the sampler's positive. Wire it "
            "to negative, and the prompt to positive."
        )
    changed = any(not torch.equal(entry["cross_attn"], table.negative) for _, entry in found)
    if changed or len(conds[found[0][0]]) > 1:
        raise ValueError(
            "The negative of P2P Null-Text Optimize was changed on its way to the sampler. "
            f"{WIRING}, without combining, averaging or concatenating it; another negative prompt "
            "goes into P2P Null-Text Optimize itself."
        )
    return {entry["uuid"] for _, entry in found}


def _check_whole_picture(denoise_mask: Tensor | None, conds: dict[str, list[dict]]) -> None:
    if denoise_mask is not None:
        raise ValueError(
            "Null embeddings cannot be sampled through a noise mask. Remove the mask from the "
            "latent, and give it to P2P Local Blend Mask to confine an edit."
        )
    if any("area" in entry for entries in conds.values() for entry in entries):
        raise ValueError(
            "Null embeddings are those of whole pictures, but a prompt of the sampler is limited "
            "to an area. Remove the area, and confine an edit with P2P Local Blend Mask."
        )


def _check_cfg(guider: Any, expected: float) -> None:
    got = getattr(guider, "cfg", math.nan)
    if not math.isclose(got, expected, rel_tol=1e-6):
        raise ValueError(
            f"The null embeddings were optimised for cfg {expected:g}, but the sampler runs at cfg "
            f"{got:g}, where they do not lead back to the picture. Give both the same cfg."
        )


def _checked(sampler: Any) -> KSAMPLER:
    """The sampler; ValueError if it adds noise or hides its steps."""
    if not isinstance(sampler, KSAMPLER):
        raise ValueError(
            f"The sampler {type(sampler).__name__} does not run on the host's sampler interface, "
            "so null embeddings cannot follow its steps. Use KSampler or a KSamplerSelect."
        )
    check_deterministic(sampler)
    check_steps_visible(sampler.sampler_function.__name__, "null-text inversion")
    return sampler
